// Layers of isolation: their order, their verdicts, and the drawing of a container as nested shells.
// No function here touches the document.

/** Layers from the outside inwards, as in the report of `jaula verify`. */
export const LAYERS = [
  'profile', 'image', 'cgroups', 'namespaces', 'users', 'network', 'mounts', 'masks', 'devices',
  'lsm', 'seccomp', 'capabilities', 'no_new_privs', 'rlimits', 'descriptors', 'probes',
];

/** Verdicts, the worst one first. */
export const VERDICTS = ['fails', 'unknown', 'relaxed', 'holds'];

const ORDER = new Map(LAYERS.map((name, index) => [name, index]));

/** Return the layers of a document in the order of the drawing. */
export function sortLayers(layers) {
  const place = (each) => ORDER.get(each.Layer) ?? LAYERS.length;
  return [...layers].sort((a, b) => place(a) - place(b));
}

/** Return the worst verdict of layers or rows; `unknown` for none. */
export function worst(items) {
  return VERDICTS.find((verdict) => items.some((each) => each.Verdict === verdict)) ?? 'unknown';
}

/** Return the number of layers by verdict, and of rows. */
export function countLayers(layers) {
  const counts = { fails: 0, unknown: 0, relaxed: 0, holds: 0, rows: 0 };
  for (const each of layers) {
    counts[each.Verdict] += 1;
    counts.rows += each.Fails + each.Unknown + each.Relaxed + each.Holds;
  }
  return counts;
}

/** Return a string that is equal for two documents that draw the same shells. */
export function shellKey(layers) {
  return layers.map((each) => each.Layer[0] + each.Verdict[0]).join('');
}

const paths = new Map();

/**
 * Return the paths of the shells of a container by verdict, in a square of 100 units.
 *
 * A layer that holds is a closed line. One that is relaxed has a gap, one that fails is broken at
 * two places, one that is unknown is drawn in pieces: the verdict is visible without colours.
 */
export function shells(layers) {
  const key = shellKey(layers);
  let found = paths.get(key);
  if (!found) {
    found = { holds: '', relaxed: '', fails: '', unknown: '' };
    const step = 33 / Math.max(layers.length, 8);
    layers.forEach((each, depth) => {
      const inset = 1.5 + depth * step;
      found[each.Verdict] += shell(inset, each.Verdict, depth);
    });
    if (paths.size > 500) paths.clear();
    paths.set(key, found);
  }
  return found;
}

const fixed = (value) => String(Math.round(value * 100) / 100);

function shell(inset, verdict, depth) {
  const near = inset;
  const far = 100 - inset;
  const radius = Math.max(3, 15 - inset * 0.3);
  if (verdict === 'holds') return outline(near, far, radius, '', '');
  const gap = verdict === 'relaxed' ? 9 : 6;
  const middle = 50 + (depth % 2 ? -1 : 1) * 4; // gaps of neighbours are not aligned
  if (verdict === 'relaxed') {
    return open(near, far, radius, middle - gap / 2, middle + gap / 2);
  }
  return halves(near, far, radius, middle, gap);
}

function outline(near, far, radius) {
  const inner = far - near - 2 * radius;
  const n = fixed;
  return `M${n(near + radius)} ${n(near)}h${n(inner)}a${n(radius)} ${n(radius)} 0 0 1 ${n(radius)} ${n(radius)}`
    + `v${n(inner)}a${n(radius)} ${n(radius)} 0 0 1-${n(radius)} ${n(radius)}h-${n(inner)}`
    + `a${n(radius)} ${n(radius)} 0 0 1-${n(radius)}-${n(radius)}v-${n(inner)}`
    + `a${n(radius)} ${n(radius)} 0 0 1 ${n(radius)}-${n(radius)}z`;
}

/** A shell with one gap, in its right side from `top` to `bottom`. */
function open(near, far, radius, top, bottom) {
  const n = fixed;
  const arc = (x, y) => `A${n(radius)} ${n(radius)} 0 0 1 ${n(x)} ${n(y)}`;
  return `M${n(far)} ${n(bottom)}V${n(far - radius)}${arc(far - radius, far)}H${n(near + radius)}`
    + `${arc(near, far - radius)}V${n(near + radius)}${arc(near + radius, near)}`
    + `H${n(far - radius)}${arc(far, near + radius)}V${n(top)}`;
}

/** A shell that is broken in its left and right side. */
function halves(near, far, radius, middle, gap) {
  const n = fixed;
  const arc = (x, y) => `A${n(radius)} ${n(radius)} 0 0 1 ${n(x)} ${n(y)}`;
  const top = middle - gap / 2;
  const bottom = middle + gap / 2;
  return `M${n(near)} ${n(top)}V${n(near + radius)}${arc(near + radius, near)}H${n(far - radius)}`
    + `${arc(far, near + radius)}V${n(top)}M${n(far)} ${n(bottom)}V${n(far - radius)}`
    + `${arc(far - radius, far)}H${n(near + radius)}${arc(near, far - radius)}V${n(bottom)}`;
}

/** Return the name of a container of the list. */
export function nameOf(entry) {
  return (entry.Names?.[0] ?? entry.Id.slice(0, 12)).replace(/^\//, '');
}

/**
 * Return the rows of the host's process tree: `[process, depth, last]`, parents first.
 *
 * Threads of the kernel are left out, as `jaula tree` does.
 */
export function treeRows(processes, folded = new Set()) {
  const children = new Map();
  const known = new Set(processes.map((each) => each.Pid));
  for (const each of processes) {
    const parent = known.has(each.Parent) ? each.Parent : 0;
    if (!children.has(parent)) children.set(parent, []);
    children.get(parent).push(each);
  }
  const rows = [];
  const add = (each, depth) => {
    const below = children.get(each.Pid) ?? [];
    rows.push({ process: each, depth, below: below.length, folded: folded.has(each.Pid) });
    if (folded.has(each.Pid) || depth > 200) return;
    below.sort((a, b) => a.Name.localeCompare(b.Name) || a.Pid - b.Pid);
    for (const child of below) add(child, depth + 1);
  };
  for (const root of children.get(0) ?? []) if (root.Name !== 'kthreadd') add(root, 0);
  return rows;
}
