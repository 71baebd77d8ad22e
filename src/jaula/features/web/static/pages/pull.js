// The progress of a pull, a push or a load: one bar for each layer.
import {html, Bar} from '../ui.js';
import {t} from '../i18n.js';
import {bytes} from '../format.js';

export const pullWords = {
  en: {'pull.layer': 'Layer {id}: {status}'},
  es: {'pull.layer': 'Capa {id}: {status}'},
};

// 'layers' are the last messages of the engine by the ids of layers.
export function Progress({layers, status}) {
  const rows = Object.values(layers);
  return html`<ul class="pull">${rows.map(({id, status: state, progressDetail: detail}) => html`<li key=${id}>
      <code>${id}</code><span class="small soft">${state}${detail?.total ? ` ${bytes(detail.current)} / ${bytes(detail.total)}` : ''}</span>
      <${Bar} value=${detail?.total ? detail.current : /complete|exists|already/i.test(state) ? 1 : 0} limit=${detail?.total || 1} label=${t('pull.layer', {id, status: state})} />
    </li>`)}</ul><p class="small faint" role="status">${status}</p>`;
}
