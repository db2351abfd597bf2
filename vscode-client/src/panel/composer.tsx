// Where the user writes: a text that grows, what goes with it, completion, history, send, queue, steer and stop.
//
// Invariant: what was written is never lost: a message that could not be sent comes back, and a draft outlives the view.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { COMMANDS, commandOf, complete, tokenAt, type Token } from './completion';
import { loadDraft, post, saveDraft } from './host';
import { Icon } from './icon';
import { Meter } from './meter';
import type { Attachment, FileChoice, PanelCommand } from './messages';
import type { View } from './state';
import type { Store } from './store';

interface Choice {
  key: string;
  icon: string;
  name: string;
  detail: string;
  choose: () => void;
}

let numbers = 0;

export function Composer({ store, view }: { store: Store; view: View }) {
  const draft = useRef(loadDraft()).current;
  const [text, setText] = useState(draft.text);
  const [attached, setAttached] = useState<Attachment[]>(draft.attachments);
  const [caret, setCaret] = useState(text.length);
  const [files, setFiles] = useState<FileChoice[]>([]);
  const [active, setActive] = useState(0);
  const [closed, setClosed] = useState(false);
  const [past, setPast] = useState<number>();
  const area = useRef<HTMLTextAreaElement>(null);
  const asked = useRef(0);
  const place = useRef<number | undefined>(undefined);
  const sent = useRef(new Map<number, { text: string; attached: Attachment[] }>());
  const unsent = useRef('');

  useEffect(() => saveDraft({ text, attachments: attached }), [text, attached]);
  useLayoutEffect(() => {
    if (place.current === undefined || area.current === null) return;
    area.current.setSelectionRange(place.current, place.current);
    place.current = undefined;
  });

  const write = (next: string, at = next.length): void => {
    setText(next);
    setCaret(at);
    setActive(0);
    setClosed(false);
    place.current = at;
  };
  const attach = (more: readonly Attachment[]): void =>
    setAttached((before) => [...before.filter((one) => !more.some((other) => other.id === one.id)), ...more]);

  store.onCompose = (message) => {
    if (message.type === 'attach') {
      attach(message.attachments);
      area.current?.focus();
    } else if (message.type === 'focus') {
      area.current?.focus();
    } else if (message.type === 'suggest') {
      if (!text.trim()) write(message.text);
      area.current?.focus();
    } else if (message.type === 'files') {
      if (message.id === asked.current) setFiles(message.files);
    } else {
      const back = sent.current.get(message.id);
      sent.current.delete(message.id);
      if (message.error === undefined) return;
      store.aside('error', message.error);
      if (back !== undefined && !text.trim()) {
        write(back.text);
        attach(back.attached);
      }
    }
  };

  const token = closed ? undefined : tokenAt(text, caret);
  const query = token?.kind === 'file' ? token.query : undefined;
  useEffect(() => {
    if (query === undefined) return;
    asked.current = ++numbers;
    post({ type: 'files', id: asked.current, query });
  }, [query]);

  const choices = token === undefined ? [] : token.kind === 'command' ? commandChoices(token) : fileChoices(token);

  function commandChoices(found: Token): Choice[] {
    return COMMANDS.filter((command) => command.name.startsWith(found.query)).map((command) => ({
      key: command.name,
      icon: 'terminal-small',
      name: `/${command.name}`,
      detail: command.text,
      choose: () => {
        if (command.argument === undefined) run(command.name, '');
        else write(`/${command.name} `);
      },
    }));
  }

  function fileChoices(found: Token): Choice[] {
    const put = (by: string): void => {
      const next = complete(text, found, caret, by);
      write(next.text, next.caret);
    };
    const special = (
      [
        ['selection', 'list-selection', 'The selection in the editor'],
        ['file', 'file', 'The open file'],
        ['problems', 'warning', 'The problems of the open file'],
      ] as const
    )
      .filter(([name]) => name.startsWith(found.query.toLowerCase()) && store.offered.some((one) => one.kind === name))
      .map(([name, icon, detail]): Choice => ({
        key: `@${name}`,
        icon,
        name: `@${name}`,
        detail,
        choose: () => {
          put('');
          post({ type: 'attach', what: name });
        },
      }));
    return [
      ...special,
      ...files.map((file): Choice => ({
        key: file.uri,
        icon: 'file',
        name: file.name,
        detail: file.folder,
        choose: () => {
          const path = file.folder ? `${file.folder}/${file.name}` : file.name;
          put(`@${path}`);
          attach([{ id: file.uri, kind: 'file', label: file.name, detail: path, item: { uri: file.uri } }]);
        },
      })),
    ].slice(0, 12);
  }

  function run(name: string, argument: string): void {
    write('');
    switch (name) {
      case 'sessions':
        return post({ type: 'page', page: 'sessions' });
      case 'stop':
        return view.running
          ? post({ type: 'cancel' })
          : store.aside('info', 'No turn is running, so there is nothing to stop.');
      case 'rename':
        return post({ type: 'rename', ...(argument ? { title: argument } : {}) });
      case 'help':
        return store.aside('info', HELP);
      default:
        return post({ type: 'run', command: name as PanelCommand });
    }
  }

  function send(delivery?: 'queue' | 'steer'): void {
    const words = text.trim();
    const command = commandOf(words);
    if (command !== undefined) return run(command.name, command.argument);
    if (!words) return;
    const id = ++numbers;
    sent.current.set(id, { text, attached });
    store.sending = [...store.sending, { id, text: words }];
    store.changed();
    post({
      type: 'send',
      id,
      text: words,
      context: attached.map((one) => one.item),
      ...(delivery ? { delivery } : {}),
    });
    write('');
    setAttached([]);
    setPast(undefined);
  }

  function recall(step: 1 | -1): boolean {
    const next = past === undefined ? (step === -1 ? store.history.length - 1 : undefined) : past + step;
    if (next === undefined || next < 0) return false;
    if (past === undefined) unsent.current = text;
    if (next >= store.history.length) {
      setPast(undefined);
      write(unsent.current);
    } else {
      setPast(next);
      write(store.history[next] ?? '', step === -1 ? 0 : (store.history[next] ?? '').length);
    }
    setClosed(true);
    return true;
  }

  function onKeyDown(event: KeyboardEvent & { currentTarget: HTMLTextAreaElement }): void {
    if (event.isComposing) return;
    const { selectionStart, selectionEnd } = event.currentTarget;
    const handled = ((): boolean => {
      if (choices.length > 0) {
        if (event.key === 'ArrowDown') return (setActive((active + 1) % choices.length), true);
        if (event.key === 'ArrowUp') return (setActive((active + choices.length - 1) % choices.length), true);
        if (event.key === 'Escape') return (setClosed(true), true);
        if (event.key === 'Tab' || (event.key === 'Enter' && !event.shiftKey))
          return (choices[Math.min(active, choices.length - 1)]?.choose(), true);
      }
      if (event.key === 'Enter' && !event.shiftKey && !event.altKey) {
        send(view.running ? (event.ctrlKey || event.metaKey ? 'steer' : 'queue') : undefined);
        return true;
      }
      if (event.key === 'ArrowUp' && selectionStart === selectionEnd && !text.slice(0, selectionStart).includes('\n'))
        return recall(-1);
      if (event.key === 'ArrowDown' && past !== undefined && !text.slice(selectionEnd).includes('\n')) return recall(1);
      return false;
    })();
    if (handled) event.preventDefault();
  }

  const chosen = Math.min(active, choices.length - 1);
  const offers = store.offered.filter((offer) => !attached.some((one) => one.id === offer.id));
  const filled = text.trim() !== '';
  return (
    <form class="composer" onSubmit={(event) => event.preventDefault()}>
      {choices.length > 0 && (
        <ul class="choices" role="listbox" id="choices" aria-label={token?.kind === 'command' ? 'Commands' : 'Files'}>
          {choices.map((choice, number) => (
            <li
              key={choice.key}
              id={`choice-${number}`}
              role="option"
              aria-selected={number === chosen}
              class={number === chosen ? 'active' : ''}
              onMouseDown={(event) => {
                event.preventDefault(); // The focus stays in the text.
                choice.choose();
              }}
            >
              <Icon name={choice.icon} />
              <span class="name">{choice.name}</span>
              <span class="folder">{choice.detail}</span>
            </li>
          ))}
        </ul>
      )}
      <div class="box">
        {(attached.length > 0 || offers.length > 0) && (
          <div class="chips">
            {attached.map((one) => (
              <span key={one.id} class="chip" title={one.detail}>
                <Icon name={CHIP[one.kind]} />
                <span class="name">{one.label}</span>
                <button
                  type="button"
                  class="icon"
                  title="Take away"
                  aria-label={`Take ${one.label} away`}
                  onClick={() => setAttached(attached.filter((other) => other.id !== one.id))}
                >
                  <Icon name="close" />
                </button>
              </span>
            ))}
            {offers.map((one) => (
              <button
                key={one.id}
                type="button"
                class="chip offer"
                title={`Add ${one.detail}`}
                aria-label={`Add ${one.detail}`}
                onClick={() => {
                  attach([one]);
                  area.current?.focus();
                }}
              >
                <Icon name="add" />
                <span class="name">{one.label}</span>
              </button>
            ))}
          </div>
        )}
        <textarea
          ref={area}
          rows={1}
          value={text}
          aria-label="Message to the agent"
          placeholder={view.running ? 'Add to the queue, Ctrl+Enter steers' : 'What shall be done? @ file, / command'}
          role="combobox"
          aria-expanded={choices.length > 0}
          aria-haspopup="listbox"
          aria-autocomplete="list"
          aria-controls={choices.length > 0 ? 'choices' : undefined}
          aria-activedescendant={choices.length > 0 ? `choice-${chosen}` : undefined}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setCaret(event.currentTarget.selectionStart);
            setActive(0);
            setClosed(false);
          }}
          onSelect={(event) => setCaret(event.currentTarget.selectionStart)}
          onKeyDown={onKeyDown}
        />
        <div class="bar">
          <button
            type="button"
            class="icon"
            title="Add a file (@)"
            aria-label="Add a file"
            onClick={() => {
              write(`${text}${text && !/\s$/.test(text) ? ' ' : ''}@`);
              area.current?.focus();
            }}
          >
            <Icon name="mention" />
          </button>
          <button
            type="button"
            class="icon model"
            title={`Model: ${store.model ?? 'none'}. Choose another…`}
            onClick={() => post({ type: 'run', command: 'model' })}
          >
            <span class="name">{store.model ?? 'No model'}</span>
          </button>
          <span class="space" />
          <Meter usage={view.usage} />
          {view.running && filled && (
            <button
              type="button"
              class="icon"
              title="Steer the running turn (Ctrl+Enter)"
              aria-label="Steer the running turn"
              onClick={() => send('steer')}
            >
              <Icon name="debug-step-into" />
            </button>
          )}
          {view.running && (
            <button
              type="button"
              class="icon stop-turn"
              title="Stop the running turn"
              aria-label="Stop the running turn"
              onClick={() => post({ type: 'cancel' })}
            >
              <Icon name="debug-stop" />
            </button>
          )}
          {(!view.running || filled) && (
            <button
              type="button"
              class="icon send"
              disabled={!filled}
              title={view.running ? 'Add to the queue (Enter)' : 'Send (Enter)'}
              aria-label={view.running ? 'Add to the queue' : 'Send'}
              onClick={() => send(view.running ? 'queue' : undefined)}
            >
              <Icon name="send" />
            </button>
          )}
        </div>
      </div>
    </form>
  );
}

const CHIP: Record<Attachment['kind'], string> = { file: 'file', selection: 'list-selection', problems: 'warning' };
const HELP =
  'Enter sends, Shift+Enter begins a new line, Up and Down bring back what you sent before. While a turn runs, Enter queues and ' +
  `Ctrl+Enter steers it. @ adds a file. Commands: ${COMMANDS.map((command) => `/${command.name}`).join(' ')}.`;
