// The panel, in the browser: takes the host's messages, draws, and turns clicks on links into questions to the host.

import { render } from 'preact';
import { Composer } from './composer';
import { Asides, Dock } from './dock';
import { post } from './host';
import { Empty, Models, Sessions } from './pages';
import { Store } from './store';
import { Timeline } from './timeline';
import type { ToPanel } from './messages';
import '@vscode/codicons/dist/codicon.css';
import './panel.css';

const root = document.getElementById('root') ?? document.body;
const store: Store = new Store(() => render(<App />, root));

function App() {
  const view = store.log.view;
  const bare = store.opened && view.items.length === 0 && store.sending.length === 0 && !view.running;
  return (
    <>
      <main class="chat" hidden={store.page !== 'chat'}>
        <Timeline store={store} view={view}>
          {bare && <Empty store={store} />}
        </Timeline>
        <Asides store={store} />
        <Dock view={view} folders={store.folders} />
        <Composer store={store} view={view} />
      </main>
      {store.page === 'sessions' && <Sessions store={store} />}
      {store.page === 'models' && <Models store={store} />}
    </>
  );
}

/** A click on a link or on a code block's copy button; neither is ever left to the browser. */
function onClick(event: MouseEvent): void {
  const target = event.target instanceof Element ? event.target : undefined;
  const link = target?.closest('a');
  if (link) {
    event.preventDefault();
    event.stopPropagation();
    const href = link.dataset['href'];
    if (href && event.type === 'click') post({ type: 'link', href });
    return;
  }
  const copy = target?.closest<HTMLElement>('[data-copy]');
  if (!copy || event.type !== 'click') return;
  const code = copy.closest('.code')?.querySelector('code')?.textContent ?? '';
  void navigator.clipboard
    .writeText(code)
    .then(
      () => copy.firstElementChild?.setAttribute('class', 'codicon codicon-check'),
      () => copy.firstElementChild?.setAttribute('class', 'codicon codicon-error'),
    )
    .finally(() => setTimeout(() => copy.firstElementChild?.setAttribute('class', 'codicon codicon-copy'), 1500));
}

root.addEventListener('click', onClick);
root.addEventListener('auxclick', onClick);
// Only the host may speak to the panel: what it frames, and what opened it, has another origin or another source.
window.addEventListener('message', (event: MessageEvent<ToPanel>) => {
  if (typeof event.data?.type === 'string') store.receive(event.data);
});
store.changed();
post({ type: 'ready' });
