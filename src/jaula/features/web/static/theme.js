// Sets theme and language before the first paint, and loads the document again if a script or style
// sheet could not be fetched: Chromium aborts requests when an interface of the host changes.
(() => {
  const root = document.documentElement;
  const stored = localStorage.getItem('jaula.theme');
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = stored === 'dark' || stored === 'light' ? stored : dark ? 'dark' : 'light';
  const language = localStorage.getItem('jaula.language') || navigator.language || 'en';
  root.lang = language.startsWith('es') ? 'es' : 'en';

  const RELOADS = 3;
  const WAIT = 500; // ms
  addEventListener('error', ({target}) => {
    // The shell can be drawn before the error of its style sheet is reported.
    const needed = target instanceof HTMLScriptElement ? !document.querySelector('.shell, .login') : target.matches?.('link[href="/static/style.css"]');
    const reloads = Number(sessionStorage.getItem('jaula.reloads'));
    if (!needed || reloads >= RELOADS) return;
    sessionStorage.setItem('jaula.reloads', String(reloads + 1));
    setTimeout(() => location.reload(), WAIT);
  }, true);
})();
