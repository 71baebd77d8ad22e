// Keys of pages, listed by '?'.
const all = new Set();

export const shortcuts = () => [...all];

// Adds a key, such as 'r' or 'g m'. 'word' is the key of its text. Returns a function that removes it.
export function shortcut(keys, word, run) {
  const entry = {keys, word, run};
  all.add(entry);
  return () => all.delete(entry);
}

const styles = new Map();

// Loads a style sheet of a page, once.
export function useStyle(name) {
  if (styles.has(name)) return;
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = `/static/${name}`;
  styles.set(name, link);
  document.head.append(link);
}
