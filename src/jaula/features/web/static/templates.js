// Translation of texts that the engine composes, by a table of templates. {name} stands for a value as
// it is, <name> for a value that the table may translate, <items> for a list of these with "and".

const VALUE = /\{\w+\}|<\w+>/g;
const DEPTH = 6; // values within values
const LENGTH = 4096; // characters of a text

// Return the function that translates a text. A text without a template is returned as it is.
export function translator(table) {
  const templates = Object.entries(table).map(([from, to]) => {
    const literals = from.split(VALUE), names = from.match(VALUE) ?? [];
    const rank = names.length === 0 ? 2 : from[0] === '<' ? 1 : 0; // a whole text, an addition to one
    return { to, literals, names, weight: rank * LENGTH + literals.join('').length };
  }).sort((one, other) => other.weight - one.weight);
  const translate = (text, depth) => {
    if (depth > DEPTH || text.length > LENGTH) return text;
    for (const template of templates) {
      const values = match(template, text);
      if (!values) continue;
      const found = new Map(template.names.map((name, index) => [name, valueOf(name, values[index], depth + 1)]));
      return template.to.replace(VALUE, (name) => found.get(name) ?? name);
    }
    return text;
  };
  const valueOf = (name, value, depth) => {
    if (name === '<items>') return value.split(' and ').map((each) => translate(each, depth)).join(' y ');
    return name.startsWith('<') ? translate(value, depth) : value;
  };
  return (text) => translate(text, 0);
}

// Return the values of a text between the literals of a template, without backtracking.
function match({ literals }, text) {
  const last = literals.length - 1;
  if (!last) return text === literals[0] ? [] : null;
  if (!text.startsWith(literals[0])) return null;
  const end = text.length - literals[last].length;
  const values = [];
  let position = literals[0].length;
  for (let index = 1; index < last; index += 1) {
    const next = text.indexOf(literals[index], position);
    if (next < 0) return null;
    values.push(text.slice(position, next));
    position = next + literals[index].length;
  }
  if (end < position || !text.endsWith(literals[last])) return null;
  return [...values, text.slice(position, end)];
}
