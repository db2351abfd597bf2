// The pages beside the conversation: what an empty one shows, the sessions, and the models.

import { useEffect, useRef, useState } from 'preact/hooks';
import { post } from './host';
import { Icon } from './icon';
import { ago, tokens, visible } from './text';
import type { ChecklistItem, SessionInfo } from './messages';
import type { Store } from './store';
import type { EndpointRow, ModelRow, SetUpAction } from '../setup_page';
import type { ComponentChildren } from 'preact';

const STATES: Record<ChecklistItem['state'], [icon: string, word: string]> = {
  ok: ['pass-filled', 'done'],
  todo: ['circle-large-outline', 'to do'],
  working: ['loading', 'under way'],
  warning: ['warning', 'look at this'],
};

/** What a session without messages shows: what is still missing, each with its one button, or how to begin. */
export function Empty({ store }: { store: Store }) {
  const { checklist, ready } = store;
  const offline = store.model === 'offline';
  return (
    <div class="empty">
      <h1>{ready ? 'What shall be done?' : 'Set up Selfloop'}</h1>
      <p class="lead">
        {ready
          ? 'Selfloop works in a sandbox on what you see. Nothing in your files changes before you approve it.'
          : 'A few things to settle, then you can begin. Nothing in your files changes before you approve it.'}
      </p>
      <ul class={ready ? 'checklist compact' : 'checklist'}>
        {checklist.map((item) => (
          <li key={item.id} class={item.state}>
            <Icon name={STATES[item.state][0]} spin={item.state === 'working'} />
            <div>
              <b>
                {item.title}
                <span class="hidden">, {STATES[item.state][1]}</span>
              </b>
              <p title={ready ? item.detail : undefined}>{item.detail}</p>
              {item.action && item.state !== 'ok' && (
                <button type="button" class={item.state === 'todo' ? 'primary' : ''} onClick={() => press(item)}>
                  {item.action.label}
                </button>
              )}
              {item.action && item.state === 'ok' && (
                <button type="button" class="link" onClick={() => press(item)}>
                  {item.action.label}
                </button>
              )}
            </div>
          </li>
        ))}
      </ul>
      {!ready && !offline && (
        <p class="try">
          No model at hand?{' '}
          <button type="button" class="link" onClick={() => post({ type: 'act', action: { do: 'offline' } })}>
            Try without a key
          </button>
          : a built-in offline model plays a whole turn on your own folder.
        </p>
      )}
      {ready && (
        <p class="try">
          <kbd>@</kbd> adds a file, <kbd>/</kbd> runs a command, <kbd>Up</kbd> brings back what you sent before.
        </p>
      )}
    </div>
  );
}

function press(item: ChecklistItem): void {
  if (item.action) post({ type: 'act', action: { do: item.action.id } });
}

export function Head({ store, title, children }: { store: Store; title: string; children?: ComponentChildren }) {
  return (
    <header class="page-head">
      <button
        type="button"
        class="icon"
        title="Back to the conversation"
        aria-label="Back to the conversation"
        onClick={() => {
          store.show('chat');
          post({ type: 'page', page: 'chat' });
        }}
      >
        <Icon name="arrow-left" />
      </button>
      <h1>{title}</h1>
      {children}
    </header>
  );
}

export function Sessions({ store }: { store: Store }) {
  const [query, setQuery] = useState('');
  const timer = useRef<number | undefined>(undefined);
  const search = useRef<HTMLInputElement>(null);
  const ask = (words: string): void => {
    store.query = words;
    post({ type: 'sessions', query: words });
  };
  useEffect(() => {
    ask('');
    search.current?.focus();
    return () => clearTimeout(timer.current);
  }, []);
  const now = Date.now();
  const rows = store.sessions;
  return (
    <div
      class="page sessions"
      onKeyDown={(event) => {
        if (event.key === 'Escape') post({ type: 'page', page: 'chat' });
        if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
        const all = [...event.currentTarget.querySelectorAll<HTMLElement>('.open-session')];
        const at = all.indexOf(document.activeElement as HTMLElement) + (event.key === 'ArrowDown' ? 1 : -1);
        event.preventDefault();
        (at < 0 ? search.current : all[Math.min(at, all.length - 1)])?.focus();
      }}
    >
      <Head store={store} title="Sessions">
        <button
          type="button"
          class="icon"
          title="New session"
          aria-label="New session"
          onClick={() => post({ type: 'run', command: 'new' })}
        >
          <Icon name="add" />
        </button>
      </Head>
      <div class="search">
        <Icon name="search" />
        <input
          ref={search}
          type="search"
          value={query}
          placeholder="Search titles and messages"
          aria-label="Search the sessions"
          onInput={(event) => {
            const words = event.currentTarget.value;
            setQuery(words);
            clearTimeout(timer.current);
            timer.current = setTimeout(() => ask(words.trim()), 150) as unknown as number;
          }}
        />
      </div>
      <div class="scroll">
        {rows === undefined ? (
          <p class="dim pad">
            <Icon name="loading" spin /> Loading
          </p>
        ) : rows.length === 0 ? (
          <p class="dim pad">{query ? 'No session has these words.' : 'There are no sessions yet.'}</p>
        ) : (
          <ul class="rows">
            {rows.map((row) => (
              <SessionRow key={row.sessionId} row={row} now={now} current={row.sessionId === store.sessionId} />
            ))}
          </ul>
        )}
      </div>
    </div>
  );
}

function SessionRow({ row, now, current }: { row: SessionInfo; now: number; current: boolean }) {
  const title = visible(row.title || 'New session');
  return (
    <li class={current ? 'current' : ''}>
      <button
        type="button"
        class="open-session"
        aria-current={current}
        title={title}
        onClick={() => post({ type: 'open', sessionId: row.sessionId })}
      >
        <Icon name={row.state === 'running' ? 'loading' : 'comment'} spin={row.state === 'running'} />
        <span class="title">
          {title}
          {row.state === 'running' && <span class="hidden">, running</span>}
        </span>
        <span class="dim">{tokens(row.inputTokens + row.outputTokens)}</span>
        <span class="dim when">{ago(row.updatedAt, now)}</span>
      </button>
      <button
        type="button"
        class="icon"
        title="Rename…"
        aria-label={`Rename ${title}`}
        onClick={() => post({ type: 'rename', sessionId: row.sessionId })}
      >
        <Icon name="edit" />
      </button>
      <button
        type="button"
        class="icon"
        title="Delete…"
        aria-label={`Delete ${title}`}
        onClick={() => post({ type: 'delete', sessionId: row.sessionId })}
      >
        <Icon name="trash" />
      </button>
    </li>
  );
}

export function Models({ store }: { store: Store }) {
  const models = store.models;
  const act = (action: SetUpAction): void => post({ type: 'act', action });
  return (
    <div
      class="page models"
      onKeyDown={(event) => {
        if (event.key === 'Escape') post({ type: 'page', page: 'chat' });
      }}
    >
      <Head store={store} title="Model">
        <button
          type="button"
          class="icon"
          title="Add an endpoint…"
          aria-label="Add an endpoint"
          onClick={() => act({ do: 'addEndpoint' })}
        >
          <Icon name="add" />
        </button>
      </Head>
      <div class="scroll">
        <section class="current-model">
          <p class="dim">In use</p>
          <p class="now">
            <b>{visible(models?.current ?? store.model ?? 'none yet')}</b>
          </p>
          <div class="buttons">
            <button
              type="button"
              disabled={models?.test?.state === 'running' || !(models?.current ?? store.model)}
              onClick={() => act({ do: 'testModel' })}
            >
              {models?.test?.state === 'running' ? (
                <>
                  <Icon name="loading" spin /> Testing
                </>
              ) : (
                'Make a test call'
              )}
            </button>
          </div>
          {models?.test && models.test.state !== 'running' && (
            <p class={`test ${models.test.state}`} role="status">
              <Icon name={models.test.state === 'ok' ? 'pass-filled' : 'error'} />
              <span>
                {visible(models.test.message)}
                {models.test.latencyMs === undefined ? '' : ` (${models.test.latencyMs} ms)`}
              </span>
            </p>
          )}
        </section>
        {models?.notice && (
          <p class="notice warning">
            <Icon name="warning" /> <span>{visible(models.notice)}</span>
          </p>
        )}
        {models?.searching && (
          <p class="dim pad">
            <Icon name="loading" spin /> Looking for local models
          </p>
        )}
        {models?.endpoints.map((endpoint) => (
          <Endpoint key={endpoint.baseUrl} endpoint={endpoint} act={act} />
        ))}
        <section class="more">
          <button type="button" class="link" onClick={() => act({ do: 'addEndpoint' })}>
            Add an endpoint…
          </button>
          <p class="dim">
            Any OpenAI-compatible address, such as OpenRouter, OpenAI, Anthropic or a server of your own.
          </p>
          <button type="button" class="link" onClick={() => act({ do: 'offline' })}>
            Try without a key
          </button>
          <p class="dim">A built-in offline model plays a whole turn on your own folder. It is a script, not a mind.</p>
        </section>
      </div>
    </div>
  );
}

function Endpoint({ endpoint, act }: { endpoint: EndpointRow; act: (action: SetUpAction) => void }) {
  const [query, setQuery] = useState('');
  const [all, setAll] = useState(false);
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = endpoint.models.filter((model) => words.every((word) => model.id.toLowerCase().includes(word)));
  const shown = all ? found : [...found].sort((a, b) => Number(b.current) - Number(a.current)).slice(0, 12);
  return (
    <section class="endpoint">
      <header>
        <h2>{visible(endpoint.name)}</h2>
        <span class="dim address" title={endpoint.baseUrl}>
          {visible(endpoint.baseUrl)}
        </span>
        {endpoint.needsKey && (
          <button
            type="button"
            class="icon"
            title={endpoint.hasKey ? 'Change its key…' : 'Set its key…'}
            aria-label={`${endpoint.hasKey ? 'Change' : 'Set'} the key of ${endpoint.name}`}
            onClick={() => act({ do: 'setKey', origin: endpoint.origin })}
          >
            <Icon name="key" />
          </button>
        )}
        {endpoint.hasKey && (
          <button
            type="button"
            class="icon"
            title="Forget its key"
            aria-label={`Forget the key of ${endpoint.name}`}
            onClick={() => act({ do: 'forgetKey', origin: endpoint.origin })}
          >
            <Icon name="circle-slash" />
          </button>
        )}
        {endpoint.added && (
          <button
            type="button"
            class="icon"
            title="Remove this endpoint"
            aria-label={`Remove ${endpoint.name}`}
            onClick={() => act({ do: 'removeEndpoint', baseUrl: endpoint.baseUrl })}
          >
            <Icon name="close" />
          </button>
        )}
      </header>
      {endpoint.problem && (
        <p class="notice warning">
          <Icon name="warning" /> <span>{visible(endpoint.problem)}</span>
        </p>
      )}
      {endpoint.needsKey && !endpoint.hasKey && (
        <p class="pad">
          <button type="button" class="primary" onClick={() => act({ do: 'setKey', origin: endpoint.origin })}>
            Set its key…
          </button>
        </p>
      )}
      {endpoint.models.length > 12 && (
        <div class="search">
          <Icon name="search" />
          <input
            type="search"
            value={query}
            placeholder={`Search ${endpoint.models.length} models`}
            aria-label={`Search the models of ${endpoint.name}`}
            onInput={(event) => setQuery(event.currentTarget.value)}
          />
        </div>
      )}
      <ul class="rows">
        {shown.map((model) => (
          <Model key={model.id} model={model} act={act} />
        ))}
      </ul>
      {endpoint.baseUrl && (
        <button type="button" class="link pad" onClick={() => act({ do: 'nameModel', baseUrl: endpoint.baseUrl })}>
          Another model by its name…
        </button>
      )}
      {found.length > shown.length && (
        <button type="button" class="link pad" onClick={() => setAll(true)}>
          Show all {found.length}
        </button>
      )}
    </section>
  );
}

function Model({ model, act }: { model: ModelRow; act: (action: SetUpAction) => void }) {
  return (
    <li class={model.current ? 'current' : ''}>
      <button
        type="button"
        class="open-session"
        aria-pressed={model.current}
        onClick={() =>
          act({ do: 'selectModel', model: model.id, ...(model.baseUrl ? { baseUrl: model.baseUrl } : {}) })
        }
      >
        <Icon name={model.current ? 'check' : 'blank'} />
        <span class="title" title={model.id}>
          {visible(model.id)}
        </span>
        {model.contextTokens !== undefined && <span class="dim">{tokens(model.contextTokens)}</span>}
      </button>
      {model.warnings.map((warning) => (
        <p key={warning} class="warning">
          <Icon name="warning" /> {visible(warning)}
        </p>
      ))}
    </li>
  );
}
