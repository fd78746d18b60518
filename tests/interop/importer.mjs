// The reference importer's CIDs: run where it is installed, with a JSON array of paths on stdin; prints
// {path: CID}. The layout is that of `ipfs add --cid-version=1`, which is not the importer's default.
import { createReadStream, lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'

const blocks = { put: (cid) => cid, get: () => { throw new Error('nothing is kept') }, has: () => false }

async function * candidates (path, name) {
  const stat = lstatSync(path)
  if (stat.isDirectory()) {
    const names = readdirSync(path)
    yield { path: name }
    for (const one of names) {
      yield * candidates(join(path, one), `${name}/${one}`)
    }
  } else {
    yield { path: name, content: createReadStream(path) }
  }
}

let input = ''
for await (const part of process.stdin) { input += part }
const found = {}
for (const path of JSON.parse(input)) {
  const options = {
    cidVersion: 1,
    rawLeaves: true,
    chunker: fixedSize({ chunkSize: 262144 }),
    layout: balanced({ maxChildrenPerNode: 174 })
  }
  for await (const entry of importer(candidates(path, 'root'), blocks, options)) {
    found[path] = entry.cid.toString()
  }
}
console.log(JSON.stringify(found))
