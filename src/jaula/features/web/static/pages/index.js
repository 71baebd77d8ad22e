// The pages of the view. Each is loaded when it is first shown.
//
//   path   pattern of the address after '#': '/containers/:id'
//   nav    {group, word, icon, key}: its place in the navigation; 'key' is typed after 'g'
//   load   imports the module, whose export 'page' is {words, View}
//
// View is a preact component; its properties are the parameters of the path and 'query'.

export const GROUPS = ['see', 'run', 'store', 'prove'];

export const PAGES = [
  {path: '/map', nav: {group: 'see', word: 'nav.map', icon: 'map', key: 'm'}, load: () => import('./map.js')},
  {path: '/reach', nav: {group: 'see', word: 'nav.reach', icon: 'reach', key: 'r'}, load: () => import('./reach.js')},
  {path: '/stats', nav: {group: 'see', word: 'nav.stats', icon: 'stats', key: 'u'}, load: () => import('./stats.js')},
  {path: '/events', nav: {group: 'see', word: 'nav.events', icon: 'events', key: 'e'}, load: () => import('./events.js')},
  {path: '/projects', nav: {group: 'run', word: 'nav.projects', icon: 'projects', key: 'p'}, load: () => import('./projects.js')},
  {path: '/verify', nav: {group: 'prove', word: 'nav.verify', icon: 'verify', key: 'y'}, load: () => import('./verify.js')},
  {path: '/why', nav: {group: 'prove', word: 'nav.why', icon: 'why', key: 'q'}, load: () => import('./why.js')},
  {path: '/records', nav: {group: 'prove', word: 'nav.records', icon: 'records', key: 'o'}, load: () => import('./records.js')},
  {path: '/profiles', nav: {group: 'prove', word: 'nav.profiles', icon: 'profiles', key: 'f'}, load: () => import('./profiles.js')},
  {path: '/audit', nav: {group: 'prove', word: 'nav.audit', icon: 'audit', key: 'a'}, load: () => import('./audit.js')},
  {path: '/containers', nav: {group: 'run', word: 'nav.containers', icon: 'containers', key: 'c'}, load: () => import('./containers.js')},
  {path: '/containers/:id', load: () => import('./container.js')},
  {path: '/create', nav: {group: 'run', word: 'nav.create', icon: 'add', key: 'n'}, load: () => import('./create.js')},
  {path: '/builds', nav: {group: 'run', word: 'nav.builds', icon: 'builds', key: 'b'}, load: () => import('./builds.js')},
  {path: '/images', nav: {group: 'store', word: 'nav.images', icon: 'images', key: 'i'}, load: () => import('./images.js')},
  {path: '/images/:name*', load: () => import('./image.js')},
  {path: '/networks', nav: {group: 'store', word: 'nav.networks', icon: 'networks', key: 'w'}, load: () => import('./networks.js')},
  {path: '/volumes', nav: {group: 'store', word: 'nav.volumes', icon: 'volumes', key: 'v'}, load: () => import('./volumes.js')},
  {path: '/secrets', nav: {group: 'store', word: 'nav.secrets', icon: 'secrets', key: 's'}, load: () => import('./secrets.js')},
];

// The page for the address '/': the first of these that exists.
export const HOME = ['/map', '/containers'];
