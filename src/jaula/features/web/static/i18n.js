// Words in English and Spanish. A page brings its own: addWords({en: {...}, es: {...}}).
//
//   t('containers.title')                 the word in the language in use
//   t('count.containers', {count: 3})     {count} is replaced; a word may be [one, many]
import en from './i18n/en.js';
import es from './i18n/es.js';

const words = {en: {...en}, es: {...es}};

export const LANGUAGES = {en: 'English', es: 'Español'};
export const language = () => document.documentElement.lang || 'en';

export function setLanguage(code) {
  document.documentElement.lang = code;
  localStorage.setItem('jaula.language', code);
}

export function addWords(dictionaries) {
  for (const [code, dictionary] of Object.entries(dictionaries)) Object.assign(words[code], dictionary);
}

export function t(key, values = {}) {
  let word = words[language()]?.[key] ?? words.en[key] ?? key;
  if (Array.isArray(word)) word = word[values.count === 1 ? 0 : 1];
  return word.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export const keys = code => Object.keys(words[code]);
