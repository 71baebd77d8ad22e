// The address after '#': a path and a query. Links are plain: <a href="#/containers/web?tab=logs">.

export function current() {
  const [path, query = ''] = location.hash.replace(/^#/, '').split('?');
  return {path: path || '/', query: new URLSearchParams(query)};
}

export function go(path, {replace = false} = {}) {
  if (replace) location.replace(`#${path}`);
  else location.hash = path;
}

// Changes parts of the query without a new page in the history.
export function setQuery(changes) {
  const {path, query} = current();
  for (const [key, value] of Object.entries(changes))
    if (value === '' || value === null || value === undefined) query.delete(key);
    else query.set(key, value);
  const text = query.toString();
  history.replaceState(null, '', `#${path}${text ? `?${text}` : ''}`);
  dispatchEvent(new HashChangeEvent('hashchange'));
}

// Returns the parameters of a path, null if it does not match. ':id' is one part, ':name*' the rest.
export function match(pattern, path) {
  const words = pattern.split('/');
  const given = path.split('/');
  const parameters = {};
  for (let i = 0; i < words.length; i++) {
    const part = words[i];
    if (part.endsWith('*')) {
      parameters[part.slice(1, -1)] = given.slice(i).map(decodeURIComponent).join('/');
      return given.length > i ? parameters : null;
    }
    if (given[i] === undefined) return null;
    if (part.startsWith(':')) {
      if (!given[i]) return null;
      try {
        parameters[part.slice(1)] = decodeURIComponent(given[i]);
      } catch {
        return null;
      }
    } else if (part !== given[i]) return null;
  }
  return given.length === words.length ? parameters : null;
}

export const path = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;
