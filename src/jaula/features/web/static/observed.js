// The containers as the observer of the engine sees them: one store for all pages.
//
// It follows `GET /jaula/observe` while a page uses it, and reads the list of containers again when
// one appears or ends. Pages subscribe to three kinds of change: 'list', 'isolation' (with the id of
// the container), and 'stats'.

import { get, jsonStream } from './api.js';

const LINGER = 15000; // milliseconds that the stream stays open without a page
const KEPT = 300; // samples of a container that the browser keeps
const RETRY = 1500; // milliseconds
const COALESCE = 150; // milliseconds between an event and the list that is read for it

export const FIELDS = [
  'cpu', 'throttled', 'memory', 'limit', 'pids', 'pids_limit', 'received', 'sent', 'read', 'written',
  'oom', 'pressure_cpu', 'pressure_memory', 'pressure_io',
];

/** Field numbers of a sample. */
export const F = Object.fromEntries(FIELDS.map((name, index) => [name, index]));

const ORDER = new Intl.Collator(undefined, { numeric: true });

class Observed {
  constructor() {
    this.containers = new Map(); // by id: {entry, isolation, samples: [[time, values]]}
    this.sorted = null; // the containers of the list, by name
    this.changes = []; // newest first: {id, name, time, ...change}
    this.host = null;
    this.error = '';
    this.ready = false; // the list has been read
    this.listeners = new Set();
    this.users = 0;
    this.close = null;
    this.timer = 0;
    this.reading = 0;
  }

  /** Call `listener(kind, id)` for each change until the returned function is called. */
  subscribe(listener) {
    this.listeners.add(listener);
    this.users += 1;
    clearTimeout(this.timer);
    if (!this.close) this.open();
    return () => {
      this.listeners.delete(listener);
      this.users -= 1;
      if (!this.users) this.timer = setTimeout(() => this.end(), LINGER);
    };
  }

  open() {
    this.read();
    let ended = false;
    let close = () => {};
    let retry = 0;
    const again = () => {
      close = jsonStream('/jaula/observe', {
        head: () => { this.error = ''; this.readSoon(); },
        document: (document) => this.take(document),
        end: (error) => {
          if (ended) return;
          this.error = error?.message ?? '';
          this.emit('list');
          retry = setTimeout(again, RETRY);
        },
      });
    };
    again();
    this.close = () => { ended = true; clearTimeout(retry); close(); };
  }

  end() {
    this.close?.();
    this.close = null;
    this.containers.clear();
    this.sorted = null;
    this.changes = [];
    this.ready = false;
  }

  emit(kind, id) {
    for (const listener of this.listeners) listener(kind, id);
  }

  readSoon() {
    if (this.reading) return;
    this.reading = setTimeout(() => { this.reading = 0; this.read(); }, COALESCE);
  }

  async read() {
    let entries;
    try {
      entries = await get('/containers/json?pods=1');
    } catch (error) {
      this.error = error.message;
      this.emit('list');
      return;
    }
    this.error = '';
    this.ready = true;
    const listed = new Set(entries.map((entry) => entry.Id));
    for (const id of [...this.containers.keys()]) if (!listed.has(id)) this.containers.delete(id);
    for (const entry of entries) this.known(entry.Id).entry = entry;
    this.sorted = null;
    this.emit('list');
  }

  known(id) {
    let found = this.containers.get(id);
    if (!found) {
      found = { entry: null, isolation: null, samples: [] };
      this.containers.set(id, found);
    }
    return found;
  }

  take(document) {
    if (document.Type === 'stats') this.takeStats(document);
    else if (document.Type === 'isolation') this.takeIsolation(document);
    else if (document.Type === 'removed') {
      this.containers.delete(document.Id);
      this.sorted = null;
      this.emit('list');
    }
  }

  takeIsolation(document) {
    const known = this.known(document.Id);
    const seen = new Set((known.isolation?.Changes ?? []).map((each) => each.Time + each.Id));
    known.isolation = document;
    for (const change of document.Changes) {
      if (seen.has(change.Time + change.Id)) continue;
      this.changes.unshift({ ...change, container: document.Id, name: document.Name });
    }
    this.changes.sort((a, b) => (a.Time < b.Time) - (a.Time > b.Time));
    this.changes.length = Math.min(this.changes.length, 200);
    if (!known.entry) this.readSoon();
    this.emit('isolation', document.Id);
  }

  takeStats(document) {
    this.host = document.Host;
    for (const [id, values] of Object.entries(document.Containers)) {
      const known = this.containers.get(id);
      if (!known) { this.readSoon(); continue; }
      known.samples.push([document.Time, values]);
      if (known.samples.length > KEPT) known.samples.shift();
    }
    this.emit('stats');
  }

  /** Return the containers of the list, sorted by name. */
  entries() {
    this.sorted ??= [...this.containers.values()].filter((each) => each.entry)
      .map((each) => each.entry).sort((a, b) => ORDER.compare(a.Names?.[0] ?? '', b.Names?.[0] ?? ''));
    return this.sorted;
  }

  /** Return the newest sample of a container, or null. */
  latest(id) {
    return this.containers.get(id)?.samples.at(-1)?.[1] ?? null;
  }
}

export const observed = new Observed();
