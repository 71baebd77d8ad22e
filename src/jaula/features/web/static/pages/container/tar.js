// A tar archive of files of the browser, as a Blob that refers to them: nothing is read into memory.
// Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".

const BLOCK = 512; // bytes
const encoder = new TextEncoder();

function header(name, size, time, type) {
  const block = new Uint8Array(BLOCK);
  const put = (at, text) => block.set(encoder.encode(text), at);
  block.set(encoder.encode(name).slice(0, 100), 0);
  put(100, '0000644\0');
  put(108, '0000000\0');
  put(116, '0000000\0');
  put(124, `${Math.min(size, 0o77777777777).toString(8).padStart(11, '0')}\0`);
  put(136, `${Math.floor(time / 1000).toString(8).padStart(11, '0')}\0`);
  put(148, '        ');
  put(156, type);
  put(257, 'ustar\x0000');
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, '0')}\0 `);
  return block;
}

function record(key, value) {
  const text = ` ${key}=${value}\n`;
  const size = encoder.encode(text).length;
  let total = size + String(size).length;
  total = size + String(total).length;
  return `${total}${text}`;
}

const padding = size => new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);

// Returns an archive of files with the attributes name, size and lastModified. 'archiveName' is a path
// that replaces the name.
export function archive(files) {
  const parts = [];
  for (const file of files) {
    const name = file.archiveName || file.name.replace(/^.*\//, '');
    const time = file.lastModified || Date.now();
    const records = encoder.encode(record('path', name) + record('size', file.size));
    parts.push(header('pax', records.length, time, 'x'), records, padding(records.length));
    parts.push(header(name, file.size, time, '0'), file, padding(file.size));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts, {type: 'application/x-tar'});
}
