// The engine's API and its live streams, as the logged-in user.
//
//   await get('/containers/json?all=1')            a JSON document; throws ApiError
//   await send('POST', '/containers/x/start')      a request that changes something
//   for await (const line of lines('POST', path))  JSON lines of a long request (pull, build)
//   const close = stream(path, {head, data, end})  an open-ended GET (logs, stats)
//   const off = onEvent(types, event => ...)       events of the engine, by type; [] for all
//   const off = onState(state => ...)              'up', 'down', 'out' (logged out)

const API = '/api';
const RETRY = 1000; // ms
let csrf = '';
let state = 'connecting';
let socket = null;
let opened = Promise.resolve();
let nextStream = 1;
const streams = new Map();
const stateListeners = new Set();
const eventListeners = new Set();

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const connectionState = () => state;

function setState(next) {
  if (next === state) return;
  state = next;
  for (const listener of [...stateListeners]) listener(state);
}

export function onState(listener) {
  stateListeners.add(listener);
  return () => stateListeners.delete(listener);
}

export function setToken(token) {
  csrf = token;
}

async function failure(response) {
  let message = `HTTP ${response.status}`;
  try {
    message = String((await response.json()).message || message);
  } catch {
    // not a JSON document: the status is all there is
  }
  if (response.status === 401) setState('out');
  if (response.status === 502) setState('down');
  return new ApiError(response.status, message);
}

async function request(method, path, {body, headers = {}, signal} = {}) {
  const all = {...headers};
  if (method !== 'GET' && method !== 'HEAD') all['X-CSRF-Token'] = csrf;
  let data = body;
  if (body !== undefined && !(body instanceof Blob) && typeof body !== 'string') {
    data = JSON.stringify(body);
    all['Content-Type'] = 'application/json';
  }
  let response;
  try {
    response = await fetch(path, {method, body: data, headers: all, signal, redirect: 'error'});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    setState('down');
    throw new ApiError(0, 'the web view does not answer');
  }
  if (!response.ok) throw await failure(response);
  return response;
}

// A request to the view itself: /session, /login, /logout.
export async function view(method, path, body) {
  const response = await request(method, path, {body});
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

export async function get(path, options) {
  return (await request('GET', API + path, options)).json();
}

export async function head(path) {
  return (await request('HEAD', API + path)).headers;
}

export async function send(method, path, body, options = {}) {
  const response = await request(method, API + path, {body, ...options});
  const text = await response.text();
  if (!text.trim()) return null;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// The JSON documents of an answer that arrives over time. An "error" among them is thrown.
export async function* lines(method, path, options = {}) {
  const response = await request(method, API + path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const {done, value} = await reader.read();
      const parts = (rest + (value || '')).split('\n');
      rest = done ? '' : parts.pop();
      for (const part of parts) {
        if (!part.trim()) continue;
        const document = JSON.parse(part);
        if (document.error) throw new ApiError(500, String(document.error));
        yield document;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// -- streams: one WebSocket for all of them ------------------------------------------------------

function connect() {
  if (socket && socket.readyState <= WebSocket.OPEN) return opened;
  const mine = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/stream`);
  mine.binaryType = 'arraybuffer';
  socket = mine;
  opened = new Promise((resolve, reject) => {
    mine.onopen = resolve;
    mine.onclose = event => {
      reject(new ApiError(0, 'the web view does not answer'));
      if (event.code === 4401) setState('out');
      const lost = [...streams.values()].filter(entry => entry.socket === mine);
      for (const entry of lost) finish(entry, 'the web view ended the connection');
    };
  });
  opened.catch(() => {});
  mine.onmessage = event => {
    if (typeof event.data === 'string') {
      const message = JSON.parse(event.data);
      const entry = streams.get(message.id);
      if (!entry) return;
      if (message.end) finish(entry, message.message);
      else if (message.status >= 400) finish(entry, message.message, message.status);
      else entry.head?.(message.status);
      return;
    }
    const id = new DataView(event.data).getUint32(0);
    streams.get(id)?.data?.(new Uint8Array(event.data, 4));
  };
  return opened;
}

function finish(entry, message, status = 0) {
  if (!streams.delete(entry.id)) return;
  entry.end?.(message ? new ApiError(status, message) : null);
}

// Opens GET path and calls data(Uint8Array) for each part, then end(error or null) once.
export function stream(path, {head, data, end}) {
  const entry = {id: nextStream++, head, data, end, socket: null};
  streams.set(entry.id, entry);
  connect().then(
    () => {
      if (!streams.has(entry.id)) return;
      entry.socket = socket;
      socket.send(JSON.stringify({open: entry.id, path}));
    },
    error => finish(entry, error.message),
  );
  return () => {
    if (!streams.delete(entry.id)) return;
    if (entry.socket?.readyState === WebSocket.OPEN)
      entry.socket.send(JSON.stringify({close: entry.id}));
  };
}

// The JSON documents of a stream of lines.
export function jsonStream(path, {head, document, end}) {
  const decoder = new TextDecoder();
  let rest = '';
  return stream(path, {
    head,
    end,
    data(part) {
      const parts = (rest + decoder.decode(part, {stream: true})).split('\n');
      rest = parts.pop();
      for (const text of parts) if (text.trim()) document(JSON.parse(text));
    },
  });
}

export function terminalSocket() {
  const terminal = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/terminal`);
  terminal.binaryType = 'arraybuffer';
  return terminal;
}

// -- events --------------------------------------------------------------------------------------

export function onEvent(types, listener) {
  const entry = {types, listener};
  eventListeners.add(entry);
  return () => eventListeners.delete(entry);
}

let following = false;

// Follows the engine's events for as long as the page is open, and tells whether it is up.
export function followEvents() {
  if (following) return;
  following = true;
  const again = () => {
    if (state === 'out') {
      following = false;
      return;
    }
    jsonStream('/events', {
      head: () => setState('up'),
      document(event) {
        for (const {types, listener} of [...eventListeners])
          if (!types.length || types.includes(event.Type)) listener(event);
      },
      end(error) {
        if (error?.status === 401 || state === 'out') setState('out');
        else if (error?.status === 403) setState('up');
        else setState('down');
        setTimeout(again, RETRY);
      },
    });
  };
  again();
}

export function loggedIn() {
  state = 'connecting';
  followEvents();
}
