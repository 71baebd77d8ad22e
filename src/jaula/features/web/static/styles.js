// Style sheets that a page has before it is drawn, so that nothing moves when they arrive.

const loaded = new Map();

/** Load a style sheet once; the promise is kept when it applies, or cannot be loaded. */
export function style(name) {
  if (!loaded.has(name)) {
    loaded.set(name, new Promise((resolve) => {
      if (!document.head) { resolve(); return; } // not a browser
      const link = document.createElement('link');
      link.rel = 'stylesheet';
      link.href = `/static/${name}`;
      link.onload = resolve;
      link.onerror = resolve;
      document.head.append(link);
    }));
  }
  return loaded.get(name);
}
