// The flags of `docker run` and `jaula run`: as a form, as a command line, and as the document that
// creates a container. Pure: no document, no network.
//
// A request is {image, command: [words], flags: {name: value}}; the value of a flag is true, a text,
// or a list of texts.

import {GROUPS, OPTIONS} from './run_options.js';

const num = text => {
  if (!/^-?\d+$/.test(text.trim())) throw new Error(`${text}: not a whole number`);
  return Number(text);
};

const UNITS = {'': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4};

// Bytes of '64m' or '1.5g'.
export function size(text) {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (text.trim() === '-1') return -1;
  if (!match) throw new Error(`${text}: not a size, such as 64m`);
  return Math.floor(Number(match[1]) * UNITS[match[2].toLowerCase()]);
}

// Nanoseconds of '1m30s' or '500ms'.
export function duration(text) {
  const units = {ms: 1e6, s: 1e9, m: 60e9, h: 3600e9};
  let total = 0;
  const rest = text.trim().replace(/(\d+(?:\.\d+)?)(ms|s|m|h)/g, (_, value, unit) => {
    total += Number(value) * units[unit];
    return '';
  });
  if (rest || !text.trim()) throw new Error(`${text}: not a duration, such as 30s`);
  return total;
}

const pair = (text, separator = '=') => {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)];
};

const object = (list, separator = '=') => Object.fromEntries(list.map(text => pair(text, separator)));

function range(text) {
  const [first, last = first] = text.split('-').map(num);
  if (!(first >= 0 && last >= first && last < 65536)) throw new Error(`${text}: not a port`);
  return Array.from({length: last - first + 1}, (_, i) => first + i);
}

// [port/protocol, {HostIp, HostPort}] for each port of '[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]'.
export function publish(text) {
  const [spec, protocol = 'tcp'] = text.split('/');
  if (!['tcp', 'udp', 'sctp'].includes(protocol)) throw new Error(`${text}: protocol must be tcp, udp or sctp`);
  const match = /^(?:(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?([\d-]*):)?([\d-]+)$/.exec(spec);
  if (!match) throw new Error(`${text}: not [ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`);
  const inside = range(match[3]);
  const outside = match[2] ? range(match[2]) : null;
  if (outside && outside.length !== inside.length) throw new Error(`${text}: the ranges have different lengths`);
  return inside.map((port, i) => [`${port}/${protocol}`, {HostIp: (match[1] || '').replace(/[[\]]/g, ''), HostPort: outside ? String(outside[i]) : ''}]);
}

const MOUNT_KEYS = {source: 'Source', src: 'Source', target: 'Target', dst: 'Target', destination: 'Target', type: 'Type'};

export function mount(text) {
  const result = {Type: 'volume'};
  for (const field of text.split(',')) {
    const [key, value] = pair(field);
    if (key in MOUNT_KEYS) result[MOUNT_KEYS[key]] = value;
    else if (key === 'readonly' || key === 'ro') result.ReadOnly = value === '' || value === 'true' || value === '1';
    else if (key === 'tmpfs-size') result.TmpfsOptions = {...result.TmpfsOptions, SizeBytes: size(value)};
    else if (key === 'tmpfs-mode') result.TmpfsOptions = {...result.TmpfsOptions, Mode: parseInt(value, 8)};
    else if (key === 'bind-propagation') result.BindOptions = {...result.BindOptions, Propagation: value};
    else if (key === 'volume-nocopy') result.VolumeOptions = {...result.VolumeOptions, NoCopy: value !== 'false'};
    else throw new Error(`mount ${text}: the form does not know ${key}`);
  }
  if (!result.Target) throw new Error(`mount ${text}: target is required`);
  return result;
}

function reference(text) {
  const result = {};
  text.split(',').forEach((field, i) => {
    const [key, value] = pair(field);
    if (i === 0 && !field.includes('=')) result.Source = field;
    else if (key === 'source' || key === 'src') result.Source = value;
    else if (key === 'target') result.Target = value;
    else if (key === 'uid' || key === 'gid') result[key.toUpperCase()] = value;
    else if (key === 'mode') result.Mode = parseInt(value, 8);
    else throw new Error(`${text}: unexpected key ${key}`);
  });
  return result;
}

function ulimit(text) {
  const [Name, value] = pair(text);
  const [soft, hard = soft] = value.split(':').map(num);
  return {Name, Soft: soft, Hard: hard};
}

function device(text) {
  const [PathOnHost, PathInContainer = PathOnHost, CgroupPermissions = 'rwm'] = text.split(':');
  return {PathOnHost, PathInContainer, CgroupPermissions};
}

const throttle = read => text => {
  const [Path, value] = pair(text, ':');
  return {Path, Rate: read(value)};
};

function restart(text) {
  const [Name, count] = pair(text, ':');
  return {Name, MaximumRetryCount: count ? num(count) : 0};
}

// How the text of a flag becomes its member of the body, by the syntax of the option. A syntax that
// is not here has a writer below.
const READERS = {
  map: list => object(list),
  label: list => object(list),
  sysctl: list => object(list),
  'path-map': list => object(list, ':'),
  mount: list => list.map(mount),
  secret: list => list.map(reference),
  ulimit: list => list.map(ulimit),
  device: list => list.map(device),
  'device-bytes': list => list.map(throttle(size)),
  'device-number': list => list.map(throttle(num)),
  restart,
  duration,
  word: value => [value],
  shell: value => ['CMD-SHELL', value],
  none: () => ['NONE'],
};

// Without a syntax the kind of the option says it.
const KINDS = {
  int: num,
  size,
  decimal(value) {
    if (!(Number(value) > 0)) throw new Error(`${value}: not a number of CPUs`);
    return Math.round(Number(value) * 1e9);
  },
};

const WRITERS = {
  publish(body, list) {
    for (const [port, binding] of list.flatMap(publish)) {
      (body.HostConfig.PortBindings[port] ??= []).push(binding);
      body.Config.ExposedPorts[port] = {};
    }
  },
  expose(body, list) {
    for (const [port] of list.flatMap(publish)) body.Config.ExposedPorts[port] = {};
  },
  volume(body, list) {
    for (const text of list) {
      if (text.includes(':')) (body.HostConfig.Binds ??= []).push(text);
      else (body.Config.Volumes ??= {})[text] = {};
    }
  },
};

// Sets a flag in the body: {Config, HostConfig, Healthcheck, Endpoint}; values of lists are lists.
function set(body, option, value) {
  if (!option.place) return;
  if (WRITERS[option.syntax]) {
    WRITERS[option.syntax](body, value);
    return;
  }
  const read = READERS[option.syntax] || (option.syntax ? undefined : KINDS[option.kind]);
  const names = option.place.split('.');
  const member = names.pop();
  const document = names.reduce((within, name) => (within[name] ??= {}), body);
  document[member] = read ? read(value) : value;
}

// A field of the form: bool, text, list or choice.
function field(option) {
  if (option.kind === 'bool') return 'bool';
  if (option.choices) return 'choice';
  return option.kind === 'list' && option.syntax !== 'network' ? 'list' : 'text';
}

export const FLAGS = OPTIONS.map(option => ({...option, kind: field(option), set: (body, value) => set(body, option, value)}));

export {GROUPS};
const byName = new Map(FLAGS.flatMap(flag => [flag.name, ...(flag.aliases || [])].map(name => [name, flag])));
const byShort = new Map(FLAGS.filter(flag => flag.short).map(flag => [flag.short, flag]));

export const isSet = value => (Array.isArray(value) ? value.some(Boolean) : Boolean(value));

// The words of the command that does the same; the container runs in the background.
export function commandWords(request, program = 'jaula') {
  const words = [program, 'run', '-d'];
  for (const flag of FLAGS) {
    const value = request.flags[flag.name];
    if (!isSet(value)) continue;
    const name = flag.short ? `-${flag.short}` : `--${flag.name}`;
    if (value === true) words.push(name);
    else for (const one of Array.isArray(value) ? value.filter(Boolean) : [value]) words.push(name, one);
  }
  return [...words, request.image || 'IMAGE', ...request.command];
}

// Parses the words of a command line. Throws an error that says which word the form cannot show.
export function parseCommand(words) {
  let rest = words.filter((word, i) => !(i === 0 && word === 'sudo'));
  if (['jaula', 'docker', 'podman'].includes(rest[0])) rest = rest.slice(1);
  if (rest[0] === 'container') rest = rest.slice(1);
  if (!['run', 'create'].includes(rest[0])) throw new Error('the line must begin with jaula run');
  const request = {image: '', command: [], flags: {}};
  const put = (flag, value) => {
    if (flag.kind === 'list') (request.flags[flag.name] ??= []).push(value);
    else request.flags[flag.name] = value;
  };
  let i = 1;
  for (; i < rest.length; i++) {
    const word = rest[i];
    if (word === '--') {
      i++;
      break;
    }
    if (!word.startsWith('-') || word === '-') break;
    if (word === '-d' || word === '--detach') continue;
    if (word.startsWith('--')) {
      const [name, given] = pair(word.slice(2));
      const flag = byName.get(name);
      if (!flag) throw new Error(`the form has no flag --${name}`);
      if (flag.kind === 'bool') put(flag, !word.includes('=') || given === 'true');
      else if (word.includes('=')) put(flag, given);
      else if (++i < rest.length) put(flag, rest[i]);
      else throw new Error(`--${name} needs a value`);
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      if (word[at] === 'd') continue;
      const flag = byShort.get(word[at]);
      if (!flag) throw new Error(`the form has no flag -${word[at]}`);
      if (flag.kind === 'bool') {
        put(flag, true);
        continue;
      }
      const given = word.slice(at + 1).replace(/^=/, '');
      if (given) put(flag, given);
      else if (++i < rest.length) put(flag, rest[i]);
      else throw new Error(`-${word[at]} needs a value`);
      break;
    }
  }
  request.image = rest[i] || '';
  request.command = rest.slice(i + 1);
  return request;
}

// The body of POST /containers/create. Throws an error for a value that is not valid.
export function createBody(request) {
  const body = {Config: {ExposedPorts: {}}, HostConfig: {PortBindings: {}}, Healthcheck: {}, Endpoint: {}};
  for (const flag of FLAGS) {
    const value = request.flags[flag.name];
    if (!isSet(value)) continue;
    try {
      flag.set(body, Array.isArray(value) ? value.filter(Boolean) : value);
    } catch (error) {
      throw new Error(`--${flag.name} ${error.message}`);
    }
  }
  const result = {...body.Config, Image: request.image, HostConfig: body.HostConfig};
  if (request.command.length) result.Cmd = request.command;
  if (Object.keys(body.Healthcheck).length) result.Healthcheck = body.Healthcheck;
  if (Object.keys(body.Endpoint).length)
    result.NetworkingConfig = {EndpointsConfig: {[body.HostConfig.NetworkMode || 'default']: body.Endpoint}};
  return result;
}
