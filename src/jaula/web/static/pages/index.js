// The pages of the view. Each is loaded when it is first shown.
//
//   path   pattern of the address after '#': '/containers/:id'
//   nav    {group, word, icon, key}: its place in the navigation; 'key' is typed after 'g'
//   load   imports the module, whose export 'page' is {words, View}
//
// View is a preact component; its properties are the parameters of the path and 'query'.

export const GROUPS = ['see', 'run', 'store', 'prove'];

export const PAGES = [
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
