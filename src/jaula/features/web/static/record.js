// The file of `jaula record`: JSON lines in a hash chain. No function here touches the document.

const GENESIS = '0'.repeat(64);
const HIDDEN = new Set(['n', 'prev', 'type', 'kind', 'program', 'count', 'first', 'last', 'source']);

/**
 * Return the parts of a record: `{header, programs, entries, end, lines}`.
 *
 * Throws an Error if the text is not a record.
 */
export function parseRecord(text) {
  let lines;
  try {
    lines = text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  } catch {
    throw new Error('the file is not a record: a line is not a JSON document');
  }
  if (lines[0]?.type !== 'header') throw new Error('the file is not a record: its first line is not a header');
  const record = { header: lines[0], programs: new Map(), entries: new Map(), end: null, lines };
  for (const line of lines) {
    if (line.type === 'program') record.programs.set(line.n, line.path || line.name);
    else if (line.type === 'entry') record.entries.set(line.n, { ...line });
    else if (line.type === 'total' && record.entries.has(line.entry)) record.entries.get(line.entry).count = line.count;
    else if (line.type === 'end') record.end = line;
  }
  return record;
}

/** Return the entries for a table: `{kind, program, subject, count}`, the most frequent first. */
export function entriesOf(record) {
  return [...record.entries.values()].map((entry) => ({
    kind: entry.kind,
    program: record.programs.get(entry.program) ?? '',
    subject: Object.entries(entry).filter(([name]) => !HIDDEN.has(name))
      .map(([name, value]) => (['path', 'syscall', 'address'].includes(name) ? String(value) : `${name}=${value}`)).join(' '),
    count: entry.count ?? 1,
  })).sort((a, b) => b.count - a.count);
}

async function digest(text) {
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Return `{broken, head}`: the number of the first line whose link is wrong, 0 for none. */
export async function checkChain(text) {
  let before = GENESIS;
  let number = 0;
  for (const line of text.split('\n').filter(Boolean)) {
    number += 1;
    const { n, prev } = JSON.parse(line);
    if (n !== number || prev !== before) return { broken: number, head: before };
    before = await digest(line);
  }
  return { broken: 0, head: before };
}
