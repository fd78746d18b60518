// A document of the API that a view shows, asked again when something happened to what it is about.

import { useEffect, useRef, useState } from "./vendor/ui.js";
import { get } from "./api.js";
import { pulse } from "./store.js";

const PATIENCE = 3; // a document that takes long is asked for seldom: it rests for so many times that long

/**
 * {data, error}: the newest answer; `data` stays while the next one is on its way, unless the path is another.
 * `on`: keys of `pulse` after which it is asked again, `every`: ms between two requests at least; `poll`: ms at most.
 */
export function useLive(path, { on = [], every = 1000, poll = 0 } = {}) {
  const [state, setState] = useState({ path: null, data: null, error: null });
  const heard = on.map((key) => pulse(key).value).join();
  const work = useRef(null);
  useEffect(() => {
    if (!path) return undefined;
    const mine = { control: new AbortController(), timer: 0, due: 0, busy: false, again: false };
    work.current = mine;
    mine.ask = async () => {
      clearTimeout(mine.timer);
      if (mine.busy) {
        mine.again = true;
        return;
      }
      const wait = mine.due - Date.now();
      if (wait > 0 || document.hidden) {
        mine.timer = setTimeout(mine.ask, Math.max(wait, 500));
        return;
      }
      mine.busy = true;
      mine.again = false;
      const began = Date.now();
      try {
        const data = await get(path, mine.control.signal);
        setState({ path, data, error: null });
      } catch (error) {
        if (error.name === "AbortError") return;
        setState((before) => ({ path, data: before.path === path ? before.data : null, error }));
        mine.again = !(error.status >= 400 && error.status < 500); // what is wrong stays wrong, until something happens
        mine.due = Date.now() + 3000;
      }
      mine.busy = false;
      mine.due = Math.max(mine.due, Date.now() + Math.max(every, PATIENCE * (Date.now() - began)));
      if (mine.again) mine.ask();
      else if (poll) mine.timer = setTimeout(mine.ask, Math.max(poll, every));
    };
    mine.ask();
    return () => {
      clearTimeout(mine.timer);
      mine.control.abort();
    };
  }, [path, poll]);
  const first = useRef(heard);
  useEffect(() => {
    if (first.current !== heard) work.current?.ask();
    first.current = heard;
  }, [heard]);
  return state.path === path ? state : { data: null, error: null };
}
