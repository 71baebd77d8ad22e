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

// Returns the parameters of a path, null if it does not match or is not encoded correctly. ':id' is
// one part, ':name*' the rest.
export function match(pattern, path) {
  try {
    return parameters(pattern, path);
  } catch (error) {
    if (error instanceof URIError) return null;
    throw error;
  }
}

function parameters(pattern, path) {
  const words = pattern.split('/');
  const given = path.split('/');
  const found = {};
  for (let i = 0; i < words.length; i++) {
    const part = words[i];
    if (part.endsWith('*')) {
      found[part.slice(1, -1)] = given.slice(i).map(decodeURIComponent).join('/');
      return given.length > i ? found : null;
    }
    if (given[i] === undefined) return null;
    if (part.startsWith(':')) {
      if (!given[i]) return null;
      found[part.slice(1)] = decodeURIComponent(given[i]);
    } else if (part !== given[i]) return null;
  }
  return given.length === words.length ? found : null;
}

export const path = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;
