// Keys of pages, listed by '?'.
const all = new Set();

export const shortcuts = () => [...all];

// Adds a key, such as 'r' or 'g m'. 'word' is the key of its text. Returns a function that removes it.
export function shortcut(keys, word, run) {
  const entry = {keys, word, run};
  all.add(entry);
  return () => all.delete(entry);
}
