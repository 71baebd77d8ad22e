// Reach between containers, host and outside, decided from the engine's documents by the rules of docs/networks.md.
// No function here touches the document.
//
// A party is 'host', 'outside', or a container of `GET /containers/json`. An answer is
// `{can, why, ports}`: `can` is 'yes', 'no', 'ports' (only published ones), 'list' (only what a list
// of the container names) or 'rules' (the host's input rules decide); `why` is a key of the words.

const BRIDGE_ICC = 'com.docker.network.bridge.enable_icc';
const PAST_FIREWALL = 'io.jaula.publish_past_firewall';

/** Return the model of a host: containers with their networks, and networks with their members. */
export function model(entries, networks, observed = new Map()) {
  const byName = new Map(networks.map((each) => [each.Name, each]));
  const parties = entries.map((entry) => {
    const mode = entry.HostConfig?.NetworkMode ?? '';
    const isolation = observed.get(entry.Id)?.isolation;
    return {
      id: entry.Id,
      name: (entry.Names?.[0] ?? entry.Id.slice(0, 12)).replace(/^\//, ''),
      entry,
      mode,
      networks: Object.keys(entry.NetworkSettings?.Networks ?? {})
        .map((name) => byName.get(name)).filter((each) => each && !['host', 'none'].includes(each.Name)),
      published: (entry.Ports ?? []).filter((each) => each.PublicPort),
      gates: null, // the published ports of its network namespace
      egress: isolation?.Egress ?? null,
      listen: isolation?.Listen ?? null,
    };
  });
  const byId = new Map(parties.map((each) => [each.id, each]));
  for (const each of parties) {
    const shared = each.mode.startsWith('container:') ? byId.get(each.mode.slice(10)) : null;
    each.gates = (shared ?? each).published;
    if (!shared) continue;
    const { networks, egress, listen } = shared;
    Object.assign(each, { networks, egress, listen, namespaceOf: shared.id });
  }
  const members = new Map(networks.map((each) => [each.Name, []]));
  for (const party of parties) {
    for (const network of party.networks) members.get(network.Name).push(party);
  }
  return { parties, byId, networks, members };
}

const isWire = (network) => ['macvlan', 'ipvlan'].includes(network.Driver);
const onHost = (party) => party === 'host' || party.mode === 'host';
const answer = (can, why, ports = []) => ({ can, why, ports });

/** Return whether `from` may open a connection to `to`. */
export function reach(from, to) {
  if (from === to) return answer('yes', 'reach.self');
  if (from !== 'outside' && to !== 'outside' && onHost(from) && onHost(to)) {
    return answer('yes', 'reach.host');
  }
  if (from === 'outside' && to === 'host') return answer('rules', 'reach.input');
  if (to === 'outside') return toOutside(from);
  if (from !== 'outside' && !onHost(from) && !from.networks.length) return answer('no', 'reach.none');
  if (onHost(to)) return from === 'outside' ? answer('rules', 'reach.input') : toHost(from);
  if (!to.networks.length) return answer('no', 'reach.none');
  if (from === 'outside') return fromOutside(to);
  if (onHost(from)) return fromHost(to);
  return between(from, to);
}

function between(from, to) {
  const root = (party) => party.namespaceOf ?? party.id;
  if (root(from) === root(to)) return answer('yes', 'reach.namespace');
  const shared = from.networks.filter((each) => to.networks.some((other) => other.Name === each.Name));
  const open = shared.filter(allowsMembers);
  if (open.length) return limited(from, to, isWire(open[0]) ? 'reach.wire' : 'reach.member');
  if (shared.length) return byPorts(from, to, 'reach.icc');
  return byPorts(from, to, 'reach.other');
}

function allowsMembers(network) {
  if (network.Driver === 'macvlan') return network.Options?.macvlan_mode !== 'private';
  return network.Options?.[BRIDGE_ICC] !== 'false';
}

/** Restrict an answer by the lists of both ends. */
function limited(from, to, why) {
  if (from.egress) return answer('list', 'reach.egress', from.egress);
  if (to.listen) return answer('list', 'reach.listen', to.listen);
  return answer('yes', why);
}

function byPorts(from, to, why) {
  const ports = to.gates.filter((each) => !isLoopback(each.IP));
  const leaves = from.networks.some((each) => !each.Internal && !isWire(each));
  if (!ports.length || !leaves) return answer('no', why);
  if (from.egress) return answer('list', 'reach.egress', from.egress);
  return answer('ports', 'reach.published', ports);
}

function fromOutside(to) {
  if (to.networks.some((each) => isWire(each) && !each.Internal)) return answer('yes', 'reach.wire');
  const ports = to.gates.filter((each) => !isLoopback(each.IP));
  if (!ports.length) return answer('no', to.gates.length ? 'reach.loopback' : 'reach.unpublished');
  return answer('ports', isPastFirewall(to) ? 'reach.past' : 'reach.published', ports);
}

function fromHost(to) {
  if (to.networks.every(isWire)) return answer('no', 'reach.parent');
  return answer('yes', 'reach.fromhost');
}

function toHost(from) {
  if (from.networks.every((each) => each.Internal)) return answer('no', 'reach.internal');
  if (from.networks.every(isWire)) return answer('no', 'reach.parent');
  if (from.egress) return answer('list', 'reach.egress', from.egress);
  return answer('rules', 'reach.input');
}

function toOutside(from) {
  if (from === 'outside') return answer('yes', 'reach.self');
  if (onHost(from)) return answer('yes', 'reach.host');
  if (!from.networks.length) return answer('no', 'reach.none');
  if (from.networks.every((each) => each.Internal)) return answer('no', 'reach.internal');
  if (from.egress) return answer('list', 'reach.egress', from.egress);
  return answer('yes', 'reach.leaves');
}

const isLoopback = (address) => address === '::1' || (address ?? '').startsWith('127.');

/** Return whether published ports of a container ignore the host's input rules. */
export function isPastFirewall(party) {
  return party.networks.some((each) => each.Options?.[PAST_FIREWALL] === 'true');
}

/** Return whether members of a network may reach each other. */
export function membersReach(network) {
  return allowsMembers(network);
}

/** Return a published port as `ADDRESS:PUBLIC -> PRIVATE/PROTOCOL`. */
export function portText(port) {
  if (typeof port === 'string') return port;
  const address = port.IP?.includes(':') ? `[${port.IP}]` : port.IP ?? '';
  return `${address}:${port.PublicPort} → ${port.PrivatePort}/${port.Type}`;
}
