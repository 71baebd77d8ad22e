// The engine's API and its live streams, as the logged-in user.
//
//   await get('/containers/json?all=1')            a JSON document; throws ApiError
//   await send('POST', '/containers/x/start')      a request that changes something
//   for await (const line of lines('POST', path))  JSON lines of a long request (pull, build)
//   await download(path, name)                     saves a file, or throws the engine's error
//   const close = stream(path, {head, data, end})  an open-ended GET (logs, stats)
//   const off = onEvent(types, event => ...)       events of the engine, by type; [] for all
//   const off = onState(state => ...)              'up', 'down', 'out' (logged out)
//
// The session is in sessionStorage, which the browser binds to scheme, host and port, and travels in
// a header. A cookie would go to every port of the host.

import {t} from './i18n.js';

const API = '/api';
const RETRY = 1000; // ms
const REFUSED_RETRY = 30000; // ms
const TRIES = 3; // of a request that only reads
const TRY_RETRY = 400; // ms
const SESSION = 'jaula.session';
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

const identifier = () => sessionStorage.getItem(SESSION) || '';

export const hasSession = () => identifier() !== '';

export function setSession(value) {
  if (value) sessionStorage.setItem(SESSION, value);
  else sessionStorage.removeItem(SESSION);
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

const pause = time => new Promise(resolve => setTimeout(resolve, time));

// Fetches, and reads again what failed on the way. Chromium aborts requests when an interface of the
// host changes (ERR_NETWORK_CHANGED), as at the start of a container on the host of the browser.
async function fetchAgain(path, options) {
  for (let left = options.method === 'GET' ? TRIES : 1; ; ) {
    try {
      return await fetch(path, options);
    } catch (error) {
      left -= 1;
      if (error.name === 'AbortError' || !left) throw error;
      await pause(TRY_RETRY);
    }
  }
}

// Imports a module, again if it could not be fetched.
export async function load(importModule) {
  for (let left = TRIES; ; ) {
    try {
      return await importModule();
    } catch (error) {
      left -= 1;
      if (!(error instanceof TypeError) || !left) throw error;
      await pause(TRY_RETRY);
    }
  }
}

async function request(method, path, {body, headers = {}, signal} = {}) {
  const all = {...headers};
  if (identifier()) all.Authorization = `Bearer ${identifier()}`;
  let data = body;
  if (body !== undefined && !(body instanceof Blob) && typeof body !== 'string') {
    data = JSON.stringify(body);
    all['Content-Type'] = 'application/json';
  }
  let response;
  try {
    response = await fetchAgain(path, {method, body: data, headers: all, signal, redirect: 'error', credentials: 'omit'});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    setState('down');
    throw new ApiError(0, t('error.view'));
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

// Returns the body of an answer as it is.
export async function sendForText(method, path, body, options = {}) {
  return (await request(method, API + path, {body, ...options})).text();
}

// Saves what a GET of this view answers as a file. A link shows no error, so a first request asks
// for the head only. A link sends no header, so it follows an address that works once.
export async function download(path, name) {
  const abort = new AbortController();
  await request('GET', path, {signal: abort.signal});
  abort.abort();
  const {url} = await view('POST', '/downloads', {path});
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
}

// Returns the beginning of a file of this view as text, at most 'limit' bytes.
export async function beginning(href, limit, signal) {
  const reader = (await request('GET', href, {signal})).body.getReader();
  const parts = [];
  for (let size = 0; size < limit;) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
  }
  reader.cancel().catch(() => {}); // the rest is not needed, and may have ended
  return new Blob(parts).slice(0, limit).text();
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

// Opens a WebSocket, which cannot have a header: its first message has the session.
function openSocket(path, onOpen) {
  const opening = new WebSocket(`${location.origin.replace(/^http/, 'ws')}${path}`);
  opening.binaryType = 'arraybuffer';
  opening.onopen = () => {
    opening.send(JSON.stringify({session: identifier()}));
    onOpen();
  };
  return opening;
}

function connect() {
  if (socket && socket.readyState <= WebSocket.OPEN) return opened;
  opened = new Promise((resolve, reject) => {
    const opening = openSocket('/stream', resolve);
    socket = opening;
    opening.onclose = event => {
      reject(new ApiError(0, t('error.view')));
      if (event.code === 4401) setState('out');
      const lost = [...streams.values()].filter(entry => entry.socket === opening);
      for (const entry of lost) finish(entry, t('error.view'));
    };
    opening.onmessage = event => {
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
  });
  opened.catch(() => {});
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

export const terminalSocket = onOpen => openSocket('/terminal', onOpen);

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
        const refused = error?.status === 403; // the engine answers, but not with its events
        if (error?.status === 401 || state === 'out') setState('out');
        else setState(refused ? 'up' : 'down');
        setTimeout(again, refused ? REFUSED_RETRY : RETRY);
      },
    });
  };
  again();
}

export function loggedIn() {
  state = 'connecting';
  followEvents();
}
