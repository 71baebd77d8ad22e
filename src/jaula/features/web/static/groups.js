// Groups of containers: compose projects, pods and networks, and the requests that act on a group.
// Pure: no document, no network.

const COMPOSE = 'com.docker.compose.';
const POD = 'io.jaula.pod';
const ROLE = 'io.jaula.pod-role';
const COLLATOR = new Intl.Collator(undefined, { numeric: true });
const ALIVE = ['running', 'restarting', 'paused'];

/** Return the compose project of a container, '' for none. */
export const projectOf = (entry) => entry.Labels?.[`${COMPOSE}project`] ?? '';

/** Return the pod of a container, '' for none. Pods of a kubelet have a namespace in their name. */
export const podOf = (entry) => (entry.Pod ? `${entry.Pod.Namespace}/${entry.Pod.Name}` : entry.Labels?.[POD] ?? '');

/** Return what a container is in its group: its service, its name in the pod, or its role there. */
export function roleOf(entry) {
  if (entry.Pod) return entry.Pod.Container ?? '';
  return entry.Labels?.[`${COMPOSE}service`] ?? entry.Labels?.[ROLE] ?? '';
}

/** Ways to group containers on the map. Each returns the name of a container's group, '' for none. */
export const GROUPS = {
  project: (entry) => projectOf(entry) || podOf(entry),
  pod: podOf,
  network: (entry) => Object.keys(entry.NetworkSettings?.Networks ?? {}).sort()[0] ?? '',
  none: () => '',
};

/** Return the way to group that tells most: projects and pods, else networks. */
export function bestGrouping(entries) {
  if (entries.some(projectOf)) return 'project';
  if (entries.some(podOf)) return 'pod';
  return new Set(entries.map(GROUPS.network)).size > 1 ? 'network' : 'none';
}

/** Return `[name, entries]` of each group in the order of names; containers without one are last. */
export function group(entries, way) {
  const groups = new Map();
  for (const entry of entries) {
    const name = GROUPS[way](entry);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(entry);
  }
  return [...groups].sort(([a], [b]) => (a === '') - (b === '') || COLLATOR.compare(a, b));
}

/**
 * Return the projects and pods of a list of containers: `{kind, name, detail, members}`.
 *
 * `kind` is 'project', 'pod', or 'kubelet' for a pod that a kubelet owns. The infra container of a
 * pod is its first member.
 */
export function groupsOf(containers) {
  const groups = new Map();
  for (const each of containers) {
    const name = podOf(each) || projectOf(each);
    if (!name) continue;
    const kind = each.Pod ? 'kubelet' : podOf(each) ? 'pod' : 'project';
    const key = `${kind} ${name}`;
    if (!groups.has(key)) {
      groups.set(key, { kind, name, detail: each.Labels?.[`${COMPOSE}project.working_dir`] ?? '', members: [] });
    }
    groups.get(key).members.push(each);
  }
  for (const { members } of groups.values()) members.sort((a, b) => isInfra(b) - isInfra(a));
  return [...groups.values()].sort((a, b) => COLLATOR.compare(a.kind, b.kind) || COLLATOR.compare(a.name, b.name));
}

const isInfra = (entry) => Number(entry.Labels?.[ROLE] === 'infra');

/** Return the services in the order in which they can be started: those without dependencies first. */
export function startOrder(members) {
  const service = (each) => each.Labels?.[`${COMPOSE}service`] ?? each.Id;
  const needs = (each) => (each.Labels?.[`${COMPOSE}depends_on`] ?? '').split(',').map((one) => one.split(':')[0]).filter(Boolean);
  const done = new Set();
  const ordered = [];
  const visit = (each, path) => {
    if (done.has(each.Id) || path.has(each.Id)) return;
    path.add(each.Id);
    for (const need of needs(each)) for (const other of members) if (service(other) === need) visit(other, path);
    done.add(each.Id);
    ordered.push(each);
  };
  for (const each of members) visit(each, new Set());
  return ordered;
}

const request = (verb, query = '') => (entry) => ({ entry, method: 'POST', path: `/containers/${entry.Id}/${verb}${query}` });

/**
 * Return the requests that act on a group, in their order: `{entry, method, path}`.
 *
 * `verb` is start, stop, restart or, for a pod, remove. The infra container holds the namespaces of
 * a pod: it starts first and stops last, and a restart of the pod stops all containers before it.
 */
export function actionsOn({ kind, members }, verb) {
  if (kind === 'project') {
    const order = startOrder(members);
    return (verb === 'stop' ? order.reverse() : order).map(request(verb));
  }
  const infra = members.filter(isInfra);
  const others = members.filter((each) => !isInfra(each));
  const start = [...infra, ...others.filter((each) => each.Labels?.[ROLE] !== 'init')].map(request('start'));
  const living = ({ entry }) => ALIVE.includes(entry.State);
  const stop = [...others.map(request('stop')), ...infra.map(request('stop', '?t=0'))].filter(living);
  if (verb === 'start') return start.filter((each) => !living(each));
  if (verb === 'stop') return stop;
  if (verb === 'restart') return [...stop, ...start];
  return [...others.reverse(), ...infra].map((entry) => ({ entry, method: 'DELETE', path: `/containers/${entry.Id}?force=1&v=1` }));
}
