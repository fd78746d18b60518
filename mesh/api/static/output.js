// What a test prints while it runs, as it comes. `record.js` shows what it printed once it has ended.
//
// The page keeps the newest of it, as text, and stays at its end until the reader scrolls up. What comes several times a
// second is not read aloud: who wants to hear it goes into it; that the test has ended is said by its page.

import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "./vendor/ui.js";
import { query } from "./api.js";
import { lastPrinted, printed } from "./format.js";
import { insist, listen } from "./stream.js";
import { Card, Empty } from "./widgets.js";

const KEPT_KIB = 64; // of text, on the page
const BLOCK_MAX = 4096; // characters of one element, about
const BLOCK_COST = 64; // an element counts as so many characters more
const NEAR_PX = 4;
const WRONG = 4; // the exit code of what stays wrong

/** `begun`: whether a worker has the test, so that there may be something to hear. */
export function Live({ run, test, begun }) {
  const box = useRef(null);
  const [screen] = useState(() => new Screen());
  useLayoutEffect(() => {
    screen.open(box.current);
    return () => {
      if (document.activeElement === box.current) document.querySelector("main h1").focus({ preventScroll: true });
    };
  }, []);
  useEffect(() => {
    if (!begun) return undefined;
    const control = new AbortController();
    attend(run, test, screen, control.signal);
    return () => control.abort();
  }, [begun]);
  const { any, cut, errors, trouble } = screen.state.value;
  const note = trouble ? `${trouble}; trying again` : cut ? `the newest ${KEPT_KIB} KiB: the beginning is cut` : "";
  return html`<${Card} title="What it prints" note=${note} end=${any && html`<label class="state"><input type="checkbox" checked=${screen.follows.value} onChange=${(event) => screen.follow(event.target.checked)} /> Stay at the end</label>`}>
    <pre class="output lasting" role="log" aria-live="off" aria-label="What it prints" tabindex="0" ref=${box} onScroll=${() => screen.follow(screen.isAtEnd())}></pre>
    ${errors && html`<p class="soft small"><span class="stderr">standard error</span></p>`}
    ${!any && html`<${Empty}>${begun ? "Nothing so far." : "It has not begun."} What it prints is here as it comes.<//>`}
  <//>`;
}

/** Show what the test prints until it has ended, or `stop`. What is told anew, after a break, takes the place of what was. */
function attend(run, test, screen, stop) {
  return insist(async () => {
    if (stop.aborted) return true;
    let over = false;
    let rest = "";
    let fresh = true;
    const take = (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      const events = lines.filter(Boolean).map((line) => JSON.parse(line));
      const pieces = events.filter(({ event }) => event === "output");
      const last = events.find(({ event }) => event !== "output");
      if (pieces.length) screen.show(pieces, fresh);
      fresh &&= !pieces.length;
      screen.tell({ trouble: last?.error ?? "" });
      over ||= last != null && (last.event !== "error" || last.exit_code === WRONG);
    };
    try {
      await listen(`api/runs/${run}/output${query({ test })}`, {}, take, stop);
    } catch (error) {
      if (error.status >= 400 && error.status < 500) return true;
      if (!stop.aborted && !document.hidden) screen.tell({ trouble: "the node does not answer" });
    }
    return over || stop.aborted;
  });
}

/** The newest of a text that grows, in an element: whole lines as they came, then the line that each stream is in. */
class Screen {
  constructor() {
    /** {any: whether something was printed, errors: also to stderr, cut: the beginning is gone, trouble: why nothing comes} */
    this.state = signal({ any: false, errors: false, cut: false, trouble: "" });
    this.follows = signal(true);
  }

  tell(fields) {
    const before = this.state.value;
    if (Object.keys(fields).some((name) => fields[name] !== before[name])) this.state.value = { ...before, ...fields };
  }

  open(element) {
    this.element = element;
    element.hidden = true;
    this.clear();
  }

  clear() {
    this.size = 0;
    this.unended = { stdout: "", stderr: "" };
    this.ends = { stdout: block("stdout"), stderr: block("stderr") };
    this.element.replaceChildren(this.ends.stdout, this.ends.stderr);
    this.tell({ cut: false });
  }

  isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }

  follow(wanted) {
    this.follows.value = wanted;
    if (wanted) this.element.scrollTop = this.element.scrollHeight;
  }

  /** `pieces`: [{stream, text}]; `fresh`: they are the first again. What the reader reads stays where it is. */
  show(pieces, fresh) {
    const follows = this.follows.value && this.isAtEnd();
    if (fresh) this.clear();
    this.element.hidden = false;
    for (const { stream, text } of pieces) this.put(stream, text);
    const { scrollHeight, scrollTop } = this.element;
    this.trim();
    this.element.scrollTop = follows ? this.element.scrollHeight : scrollTop - (scrollHeight - this.element.scrollHeight);
    this.tell({ any: true, errors: this.state.value.errors || pieces.some(({ stream }) => stream === "stderr") });
  }

  put(stream, text) {
    const held = this.unended[stream] + text;
    const end = held.lastIndexOf("\n") + 1;
    this.add(stream, printed(held.slice(0, end)));
    const line = lastPrinted(held.slice(end));
    const long = line.length > BLOCK_MAX;
    if (long) this.add(stream, printed(line));
    this.unended[stream] = long ? "" : line;
    this.ends[stream].firstChild.data = printed(this.unended[stream]);
  }

  add(stream, text) {
    if (!text) return;
    const last = this.ends.stdout.previousSibling;
    const joins = last?.className === stream && last.firstChild.length < BLOCK_MAX;
    if (joins) last.firstChild.appendData(text);
    else this.ends.stdout.before(block(stream, text));
    this.size += text.length + (joins ? 0 : BLOCK_COST);
  }

  /** Whole lines go, the oldest first. */
  trim() {
    while (this.size > KEPT_KIB * 1024) {
      const first = this.element.firstChild;
      const text = first.firstChild;
      const line = text.data.indexOf("\n", this.size - KEPT_KIB * 1024) + 1;
      if (line && line < text.length) {
        text.deleteData(0, line);
        this.size -= line;
      } else {
        this.size -= text.length + BLOCK_COST;
        first.remove();
      }
      this.tell({ cut: true });
    }
  }
}

function block(stream, text = "") {
  const element = document.createElement("span");
  element.className = stream;
  element.append(document.createTextNode(text));
  return element;
}
