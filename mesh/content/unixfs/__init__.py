"""UnixFS as a pure format: bytes in, blocks out, and back. No file, socket or clock is touched here.

Written out by hand because the library's own gives wrong CIDs for files of more than one chunk, for a lone trailing
leaf and for unsorted directories. The parameters are those of `ipfs add --cid-version=1`, so that equal trees have
equal CIDs here and in Kubo: raw leaves, chunks of 262,144 bytes, 174 links a node, balanced, names sorted, large
directories sharded.

`car` is the archive format of the same blocks.
"""
