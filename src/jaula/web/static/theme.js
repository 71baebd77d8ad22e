// Sets theme and language before the first paint.
(() => {
  const root = document.documentElement;
  const stored = localStorage.getItem('jaula.theme');
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = stored === 'dark' || stored === 'light' ? stored : dark ? 'dark' : 'light';
  const language = localStorage.getItem('jaula.language') || navigator.language || 'en';
  root.lang = language.startsWith('es') ? 'es' : 'en';
})();
