// Output of programs: frames of the API into lines, and colours of ANSI into classes. Pure.

const MAX_PARTIAL = 1 << 20; // bytes of a line without an end

// Splits the body of logs or attach into lines. Source: Docker Engine API, "Stream format".
export class Demultiplexer {
  // 'line(kind, text)': kind is 1 for standard output, 2 for standard error.
  constructor(tty, line) {
    this.tty = tty;
    this.line = line;
    this.data = new Uint8Array(0);
    this.partial = {1: '', 2: ''};
    this.decoders = {1: new TextDecoder(), 2: new TextDecoder()};
  }

  add(part) {
    if (this.tty) {
      this.text(1, part);
      return;
    }
    let data = part;
    if (this.data.length) {
      data = new Uint8Array(this.data.length + part.length);
      data.set(this.data);
      data.set(part, this.data.length);
    }
    let at = 0;
    while (data.length - at >= 8) {
      const size = new DataView(data.buffer, data.byteOffset + at).getUint32(4);
      if (data.length - at - 8 < size) break;
      this.text(data[at] === 2 ? 2 : 1, data.subarray(at + 8, at + 8 + size));
      at += 8 + size;
    }
    this.data = data.slice(at);
  }

  text(kind, data) {
    const lines = (this.partial[kind] + this.decoders[kind].decode(data, {stream: true})).split('\n');
    this.partial[kind] = lines.pop();
    if (this.partial[kind].length > MAX_PARTIAL) {
      lines.push(this.partial[kind]);
      this.partial[kind] = '';
    }
    for (const line of lines) this.line(kind, line.replace(/\r$/, ''));
  }

  end() {
    for (const kind of [1, 2]) {
      if (this.partial[kind]) this.line(kind, this.partial[kind]);
      this.partial[kind] = '';
    }
  }
}

// eslint-disable-next-line no-control-regex
const ESCAPE = /\x1b(?:\[([0-9;:?]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])/g;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

// Returns [classes, text] for each part of a line. Only colours and weights are kept; every other
// sequence is left out, and control characters become visible.
export function ansiParts(line) {
  const shown = line.includes('\r') ? line.slice(line.replace(/\r+$/, '').lastIndexOf('\r') + 1) : line;
  if (!shown.includes('\x1b')) return [['', visible(shown)]];
  const parts = [];
  const style = {color: '', bold: false, dim: false, underline: false};
  let at = 0;
  const push = text => {
    if (!text) return;
    const classes = [style.color, style.bold && 'bold', style.dim && 'dim', style.underline && 'underline'].filter(Boolean).join(' ');
    parts.push([classes, visible(text)]);
  };
  for (const match of shown.matchAll(ESCAPE)) {
    push(shown.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] !== 'm') continue;
    const codes = (match[1] || '0').split(/[;:]/).map(Number);
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code === 0) Object.assign(style, {color: '', bold: false, dim: false, underline: false});
      else if (code === 1) style.bold = true;
      else if (code === 2) style.dim = true;
      else if (code === 4) style.underline = true;
      else if (code === 22) style.bold = style.dim = false;
      else if (code === 24) style.underline = false;
      else if (code === 39) style.color = '';
      else if (code >= 30 && code <= 37) style.color = `ansi-${code - 30}`;
      else if (code >= 90 && code <= 97) style.color = `ansi-${code - 90}`;
      else if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4;
    }
  }
  push(shown.slice(at));
  return parts;
}

function visible(text) {
  return text.replace(CONTROL, character => (character <= '\x1f' ? String.fromCharCode(0x2400 + character.charCodeAt(0)) : '\ufffd'));
}
