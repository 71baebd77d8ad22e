// The flags of `docker run` and `jaula run`: as a form, as a command line, and as the document that
// creates a container. Pure: no document, no network.
//
// A request is {image, command: [words], flags: {name: value}}; the value of a flag is true, a text,
// or a list of texts.

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

// Flags: name, short name, kind (bool, text, list, choice), group, and how it goes into the body.
// 'set(body, value)' changes {config, host, health, endpoint}; values of lists are lists.
const host = key => (body, value) => {
  body.host[key] = value;
};
const config = key => (body, value) => {
  body.config[key] = value;
};
const health = (key, read = value => value) => (body, value) => {
  body.health[key] = read(value);
};
const endpoint = (key, read = value => value) => (body, value) => {
  body.endpoint[key] = read(value);
};
const hostAs = (key, read) => (body, value) => host(key)(body, Array.isArray(value) ? value.map(read) : read(value));

export const FLAGS = [
  {name: 'name', kind: 'text', group: 'general', set() {}},
  {name: 'rm', kind: 'bool', group: 'general', set: host('AutoRemove')},
  {name: 'restart', kind: 'choice', choices: ['no', 'on-failure', 'unless-stopped', 'always'], open: true, group: 'general', set: hostAs('RestartPolicy', restart)},
  {name: 'interactive', short: 'i', kind: 'bool', group: 'general', set: config('OpenStdin')},
  {name: 'tty', short: 't', kind: 'bool', group: 'general', set: config('Tty')},
  {name: 'init', kind: 'bool', group: 'general', set: host('Init')},
  {name: 'pull', kind: 'choice', choices: ['missing', 'always', 'never'], group: 'general', set() {}},
  {name: 'platform', kind: 'text', hint: 'linux/amd64', group: 'general', set() {}},

  {name: 'entrypoint', kind: 'text', hint: '/bin/sh', group: 'process', set: (body, value) => config('Entrypoint')(body, [value])},
  {name: 'user', short: 'u', kind: 'text', hint: '1000:1000', group: 'process', set: config('User')},
  {name: 'workdir', short: 'w', kind: 'text', hint: '/srv', group: 'process', set: config('WorkingDir')},
  {name: 'env', short: 'e', kind: 'list', hint: 'NAME=value', group: 'process', set: config('Env')},
  {name: 'hostname', short: 'h', kind: 'text', group: 'process', set: config('Hostname')},
  {name: 'group-add', kind: 'list', hint: 'audio', group: 'process', set: host('GroupAdd')},
  {name: 'stop-signal', kind: 'text', hint: 'SIGTERM', group: 'process', set: config('StopSignal')},
  {name: 'stop-timeout', kind: 'text', hint: '10', group: 'process', set: (body, value) => config('StopTimeout')(body, num(value))},

  {name: 'network', aliases: ['net'], kind: 'text', hint: 'bridge', group: 'network', set: host('NetworkMode')},
  {name: 'publish', short: 'p', kind: 'list', hint: '8080:80', group: 'network', set(body, list) {
    for (const [port, binding] of list.flatMap(publish)) {
      (body.host.PortBindings[port] ??= []).push(binding);
      body.config.ExposedPorts[port] = {};
    }
  }},
  {name: 'publish-all', short: 'P', kind: 'bool', group: 'network', set: host('PublishAllPorts')},
  {name: 'expose', kind: 'list', hint: '80', group: 'network', set(body, list) {
    for (const [port] of list.flatMap(publish)) body.config.ExposedPorts[port] = {};
  }},
  {name: 'network-alias', kind: 'list', hint: 'db', group: 'network', set: endpoint('Aliases')},
  {name: 'ip', kind: 'text', hint: '10.1.2.3', group: 'network', set: (body, value) => {
    body.endpoint.IPAMConfig = {...body.endpoint.IPAMConfig, IPv4Address: value};
  }},
  {name: 'ip6', kind: 'text', hint: 'fd00::5', group: 'network', set: (body, value) => {
    body.endpoint.IPAMConfig = {...body.endpoint.IPAMConfig, IPv6Address: value};
  }},
  {name: 'mac-address', kind: 'text', group: 'network', set: endpoint('MacAddress')},
  {name: 'egress', kind: 'list', hint: 'tcp:192.0.2.0/24:443', group: 'network', set: host('Egress')},
  {name: 'listen', kind: 'list', hint: 'tcp:80', group: 'network', set: host('Listen')},
  {name: 'dns', kind: 'list', hint: '9.9.9.9', group: 'network', set: host('Dns')},
  {name: 'dns-search', kind: 'list', hint: 'example.org', group: 'network', set: host('DnsSearch')},
  {name: 'dns-option', aliases: ['dns-opt'], kind: 'list', hint: 'ndots:2', group: 'network', set: host('DnsOptions')},
  {name: 'add-host', kind: 'list', hint: 'api:10.0.0.9', group: 'network', set: host('ExtraHosts')},

  {name: 'volume', short: 'v', kind: 'list', hint: 'data:/var/lib/data', group: 'storage', set(body, list) {
    for (const text of list) {
      if (text.includes(':')) (body.host.Binds ??= []).push(text);
      else (body.config.Volumes ??= {})[text] = {};
    }
  }},
  {name: 'mount', kind: 'list', hint: 'type=volume,source=data,target=/data', group: 'storage', set: hostAs('Mounts', mount)},
  {name: 'tmpfs', kind: 'list', hint: '/tmp', group: 'storage', set: (body, list) => host('Tmpfs')(body, object(list, ':'))},
  {name: 'read-only', kind: 'bool', group: 'storage', set: host('ReadonlyRootfs')},
  {name: 'volumes-from', kind: 'list', hint: 'other:ro', group: 'storage', set: host('VolumesFrom')},
  {name: 'shm-size', kind: 'text', hint: '64m', group: 'storage', set: hostAs('ShmSize', size)},
  {name: 'storage-opt', kind: 'list', hint: 'size=1g', group: 'storage', set: (body, list) => host('StorageOpt')(body, object(list))},
  {name: 'secret', kind: 'list', hint: 'db,target=password', group: 'storage', set: hostAs('Secrets', reference)},
  {name: 'config', kind: 'list', hint: 'site,target=/etc/site.conf', group: 'storage', set: hostAs('Configs', reference)},

  {name: 'memory', short: 'm', kind: 'text', hint: '256m', group: 'limits', set: hostAs('Memory', size)},
  {name: 'memory-swap', kind: 'text', hint: '512m', group: 'limits', set: hostAs('MemorySwap', size)},
  {name: 'memory-reservation', kind: 'text', hint: '128m', group: 'limits', set: hostAs('MemoryReservation', size)},
  {name: 'cpus', kind: 'text', hint: '1.5', group: 'limits', set: (body, value) => {
    if (!(Number(value) > 0)) throw new Error(`${value}: not a number of CPUs`);
    host('NanoCpus')(body, Math.round(Number(value) * 1e9));
  }},
  {name: 'cpu-shares', short: 'c', kind: 'text', hint: '1024', group: 'limits', set: hostAs('CpuShares', num)},
  {name: 'cpuset-cpus', kind: 'text', hint: '0-1', group: 'limits', set: host('CpusetCpus')},
  {name: 'pids-limit', kind: 'text', hint: '100', group: 'limits', set: hostAs('PidsLimit', num)},
  {name: 'ulimit', kind: 'list', hint: 'nofile=1024:4096', group: 'limits', set: hostAs('Ulimits', ulimit)},
  {name: 'blkio-weight', kind: 'text', hint: '500', group: 'limits', set: hostAs('BlkioWeight', num)},
  {name: 'device-read-bps', kind: 'list', hint: '/dev/sda:10m', group: 'limits', set: hostAs('BlkioDeviceReadBps', throttle(size))},
  {name: 'device-write-bps', kind: 'list', hint: '/dev/sda:10m', group: 'limits', set: hostAs('BlkioDeviceWriteBps', throttle(size))},
  {name: 'device-read-iops', kind: 'list', hint: '/dev/sda:100', group: 'limits', set: hostAs('BlkioDeviceReadIOps', throttle(num))},
  {name: 'device-write-iops', kind: 'list', hint: '/dev/sda:100', group: 'limits', set: hostAs('BlkioDeviceWriteIOps', throttle(num))},
  {name: 'oom-score-adj', kind: 'text', hint: '100', group: 'limits', set: hostAs('OomScoreAdj', num)},

  {name: 'profile', kind: 'choice', choices: ['default', 'strict', 'docker', 'honeypot'], group: 'isolation', set: host('Profile')},
  {name: 'cap-drop', kind: 'list', hint: 'ALL', group: 'isolation', set: host('CapDrop')},
  {name: 'cap-add', kind: 'list', hint: 'NET_ADMIN', group: 'isolation', relaxes: true, set: host('CapAdd')},
  {name: 'security-opt', kind: 'list', hint: 'no-new-privileges', group: 'isolation', relaxes: true, set: host('SecurityOpt')},
  {name: 'device', kind: 'list', hint: '/dev/fuse', group: 'isolation', relaxes: true, set: hostAs('Devices', device)},
  {name: 'sysctl', kind: 'list', hint: 'net.ipv4.ip_forward=1', group: 'isolation', set: (body, list) => host('Sysctls')(body, object(list))},
  {name: 'userns', kind: 'text', hint: 'keep-id', group: 'isolation', relaxes: true, set: host('UsernsMode')},
  {name: 'pid', kind: 'text', hint: 'container:NAME', group: 'isolation', relaxes: true, set: host('PidMode')},
  {name: 'ipc', kind: 'text', hint: 'private', group: 'isolation', relaxes: true, set: host('IpcMode')},
  {name: 'uts', kind: 'text', group: 'isolation', relaxes: true, set: host('UTSMode')},
  {name: 'cgroupns', kind: 'choice', choices: ['private', 'host'], group: 'isolation', relaxes: true, set: host('CgroupnsMode')},
  {name: 'runtime', kind: 'text', hint: 'runc', group: 'isolation', set: host('Runtime')},
  {name: 'privileged', kind: 'bool', group: 'isolation', relaxes: true, set: host('Privileged')},

  {name: 'health-cmd', kind: 'text', hint: 'wget -qO- localhost', group: 'health', set: health('Test', value => ['CMD-SHELL', value])},
  {name: 'health-interval', kind: 'text', hint: '30s', group: 'health', set: health('Interval', duration)},
  {name: 'health-timeout', kind: 'text', hint: '5s', group: 'health', set: health('Timeout', duration)},
  {name: 'health-retries', kind: 'text', hint: '3', group: 'health', set: health('Retries', num)},
  {name: 'health-start-period', kind: 'text', hint: '10s', group: 'health', set: health('StartPeriod', duration)},
  {name: 'no-healthcheck', kind: 'bool', group: 'health', set: health('Test', () => ['NONE'])},

  {name: 'label', short: 'l', kind: 'list', hint: 'team=web', group: 'metadata', set: (body, list) => config('Labels')(body, object(list))},
  {name: 'annotation', kind: 'list', hint: 'key=value', group: 'metadata', set: (body, list) => host('Annotations')(body, object(list))},
  {name: 'log-driver', kind: 'choice', choices: ['json-file', 'local', 'journald', 'syslog', 'none'], open: true, group: 'metadata', set: (body, value) => {
    body.host.LogConfig = {...body.host.LogConfig, Type: value};
  }},
  {name: 'log-opt', kind: 'list', hint: 'max-size=10m', group: 'metadata', set: (body, list) => {
    body.host.LogConfig = {...body.host.LogConfig, Config: object(list)};
  }},
  {name: 'cgroup-parent', kind: 'text', group: 'metadata', set: host('CgroupParent')},
];

export const GROUPS = ['general', 'process', 'network', 'storage', 'limits', 'isolation', 'health', 'metadata'];
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
  const body = {config: {ExposedPorts: {}}, host: {PortBindings: {}}, health: {}, endpoint: {}};
  for (const flag of FLAGS) {
    const value = request.flags[flag.name];
    if (!isSet(value)) continue;
    try {
      flag.set(body, Array.isArray(value) ? value.filter(Boolean) : value);
    } catch (error) {
      throw new Error(`--${flag.name} ${error.message}`);
    }
  }
  const result = {...body.config, Image: request.image, HostConfig: body.host};
  if (request.command.length) result.Cmd = request.command;
  if (Object.keys(body.health).length) result.Healthcheck = body.health;
  if (Object.keys(body.endpoint).length)
    result.NetworkingConfig = {EndpointsConfig: {[body.host.NetworkMode || 'default']: body.endpoint}};
  return result;
}
