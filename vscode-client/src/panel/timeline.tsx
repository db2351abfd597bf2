// The session from top to bottom. It stays at its end while things come, unless the user has scrolled up.
//
// Invariant: what a screen reader is told comes from one quiet region, a sentence at a time, not from every redraw.

import { memo } from 'preact/compat';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { GateCard } from './gate';
import { post } from './host';
import { Icon } from './icon';
import { Prose } from './prose';
import { STOPPED, type Item, type View } from './state';
import { cap, clock, plain, visible } from './text';
import { ToolCard } from './tool';
import type { ComponentChildren } from 'preact';
import type { GateCard as Card } from './messages';
import type { Aside, Sending, Store } from './store';

/** How far from its end, in pixels, the timeline still counts as being at it. */
const NEAR_END = 40;

interface TimelineProps {
  store: Store;
  view: View;
  /** What a session without messages shows. */
  children: ComponentChildren;
}

export function Timeline({ store, view, children }: TimelineProps) {
  const bare = Boolean(children);
  const box = useRef<HTMLDivElement>(null);
  const stuck = useRef(true);
  const [away, setAway] = useState(false);
  const empty = useRef(bare);
  empty.current = bare;
  const before = useRef({ first: view.first, height: 0, epoch: store.epoch, sending: 0 });

  const older = (): void => {
    if (!store.more || store.loadingOlder || view.first <= 1) return;
    store.loadingOlder = true;
    post({ type: 'older', epoch: store.epoch, before: view.first });
    store.changed();
  };

  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const last = before.current;
    // Whoever sends a message wants to see it.
    if (last.epoch !== store.epoch || store.sending.length > last.sending) stuck.current = true;
    if (bare) stuck.current = true;
    else if (stuck.current) element.scrollTop = element.scrollHeight;
    else if (last.epoch === store.epoch && view.first < last.first)
      element.scrollTop += element.scrollHeight - last.height;
    before.current = {
      first: view.first,
      height: element.scrollHeight,
      epoch: store.epoch,
      sending: store.sending.length,
    };
    // A page that does not fill the panel cannot be scrolled, so the one before it is asked for at once.
    if (element.clientHeight > 0 && element.scrollHeight < element.clientHeight * 1.5) older();
  });

  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const watcher = new ResizeObserver(() => {
      if (stuck.current && !empty.current) element.scrollTop = element.scrollHeight;
    });
    watcher.observe(element);
    if (element.firstElementChild) watcher.observe(element.firstElementChild);
    return () => watcher.disconnect();
  }, []);

  const onScroll = (): void => {
    const element = box.current;
    if (element === null) return;
    stuck.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
    setAway(!stuck.current && !bare);
    if (element.scrollTop < 600) older();
  };

  const waiting = new Set(view.queue.map((entry) => entry.messageId));
  const items = view.items.filter((item) => !(item.kind === 'user' && waiting.has(item.messageId)));
  return (
    <div class="timeline-box">
      <div
        class="timeline"
        ref={box}
        onScroll={onScroll}
        role="log"
        aria-live="off"
        aria-label="Conversation"
        tabIndex={0}
      >
        <div class="items">
          {store.more && (
            <p class="older">
              {store.loadingOlder ? (
                <>
                  <Icon name="loading" spin /> Loading
                </>
              ) : (
                ''
              )}
            </p>
          )}
          {children}
          {items.map((item, place) => (
            <Entry
              key={item.key}
              item={item}
              told={saysWhy(items[place - 1])}
              anew={isAnew(items, place)}
              card={item.kind === 'gate' ? store.cards.get(item.gate.gateId) : undefined}
            />
          ))}
          {store.sending.map((one) => (
            <Pending key={`sending:${one.id}`} sending={one} />
          ))}
          {(view.running || store.sending.length > 0) && <Activity view={view} items={items} />}
        </div>
      </div>
      {away && (
        <button
          type="button"
          class="to-end"
          title="Go to the end"
          aria-label="Go to the end"
          onClick={() => {
            stuck.current = true;
            if (box.current) box.current.scrollTop = box.current.scrollHeight;
          }}
        >
          <Icon name="arrow-down" />
        </button>
      )}
      <Spoken view={view} />
    </div>
  );
}

interface EntryProps {
  item: Item;
  card: Card | undefined;
  /** The item before it has told why the turn ended. */
  told: boolean;
  /** The item is an answer that was cut off, and that was begun anew below. */
  anew: boolean;
}

const Entry = memo(
  function Entry({ item, card, told, anew }: EntryProps) {
    switch (item.kind) {
      case 'user':
        return <User text={item.text} />;
      case 'assistant':
        return anew ? (
          <Interrupted text={item.text} />
        ) : (
          <article class="answer" aria-label="Answer">
            <Prose text={item.text} streaming={item.status === 'streaming'} />
            {item.status === 'interrupted' && (
              <p class="interrupted">
                <Icon name="debug-disconnect" /> Interrupted here.
              </p>
            )}
          </article>
        );
      case 'thought':
        return <Thought text={item.text} live={item.live} />;
      case 'tool':
        return <ToolCard call={item.call} stopped={item.stopped} />;
      case 'task':
        return item.number > 1 ? (
          <div class="task" role="separator" aria-label={`Task ${item.number}`}>
            <span>Task {item.number}</span>
          </div>
        ) : null;
      case 'notice':
        return <Notice severity={item.severity} text={item.text} />;
      case 'gate':
        return <GateCard gate={item.gate} card={card} />;
      case 'stop':
        return told && item.reason === 'error' ? null : (
          <p class={`stop ${item.reason}`}>
            <Icon name={item.reason === 'error' ? 'error' : item.reason === 'cancelled' ? 'debug-stop' : 'warning'} />{' '}
            <span>{STOPPED[item.reason]}</span>
          </p>
        );
    }
  },
  (one, other) =>
    one.card === other.card && one.told === other.told && one.anew === other.anew && same(one.item, other.item),
);

/** An answer that was cut off and then given anew: it is kept, but not read twice. */
function Interrupted({ text }: { text: string }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="tool thought" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <Icon name="debug-disconnect" />
        <span class="title">Interrupted, begun anew</span>
        <i class="codicon codicon-chevron-right twist" aria-hidden="true" />
      </summary>
      {open && (
        <div class="tool-body">
          <Prose text={text} streaming={false} />
        </div>
      )}
    </details>
  );
}

function isAnew(items: readonly Item[], place: number): boolean {
  const item = items[place];
  if (item?.kind !== 'assistant' || item.status !== 'interrupted') return false;
  const later = items
    .slice(place + 1)
    .find((one) => one.kind === 'assistant' || one.kind === 'tool' || one.kind === 'user');
  return later?.kind === 'assistant' || later?.kind === 'tool';
}

/** An error that was told needs no second line that there was one. */
function saysWhy(item: Item | undefined): boolean {
  return item?.kind === 'notice' && item.severity === 'error';
}

/** Derived anew, an item is another object with the same content. */
function same(one: Item, other: Item): boolean {
  if (one === other) return true;
  const names = Object.keys(one) as (keyof Item)[];
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}

function User({ text }: { text: string }) {
  const [all, setAll] = useState(false);
  const clean = plain(all ? cap(text).shown : text.slice(0, 1200));
  const long = clean.length < text.length && !all ? true : clean.split('\n').length > 12;
  return (
    <article class="user" aria-label="You">
      <div class={long && !all ? 'said clamped' : 'said'}>{clean}</div>
      {long && (
        <button type="button" class="link" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? 'Show less' : 'Show all'}
        </button>
      )}
    </article>
  );
}

function Pending({ sending }: { sending: Sending }) {
  return (
    <article class="user pending" aria-label="Being sent">
      <div class="said">{plain(sending.text.slice(0, 1200))}</div>
    </article>
  );
}

function Thought({ text, live }: { text: string; live: boolean }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="tool thought" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <Icon name={live ? 'loading' : 'lightbulb'} spin={live} />
        <span class="title">{live ? 'Thinking' : 'Thought'}</span>
        <i class="codicon codicon-chevron-right twist" aria-hidden="true" />
      </summary>
      {open && (
        <div class="tool-body">
          <Prose text={text} streaming={live} />
        </div>
      )}
    </details>
  );
}

function Notice({ severity, text }: { severity: Aside['severity']; text: string }) {
  return (
    <p class={`notice ${severity}`}>
      <Icon name={severity} /> <span>{visible(plain(text))}</span>
    </p>
  );
}

/** What the running turn does at the moment, and since when it runs. */
function Activity({ view, items }: { view: View; items: readonly Item[] }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const word = view.running ? activityOf(items) : 'Sending';
  const seconds = view.running && view.since ? (now - view.since) / 1000 : 0;
  return (
    <p class="activity" aria-hidden="true">
      <span class="pulse" /> {word}
      {seconds >= 3 && <span class="clock">{clock(seconds)}</span>}
    </p>
  );
}

function activityOf(items: readonly Item[]): string {
  const asks = items.findLast(
    (item) => item.kind === 'gate' && item.gate.state === 'open' && item.gate.subject['type'] === 'command',
  );
  if (asks !== undefined) return 'Waits for your answer';
  const last = items.at(-1);
  if (last?.kind === 'assistant' && last.status === 'streaming') return 'Writing';
  return last?.kind === 'tool' && last.call.status === 'running' ? 'Working' : 'Thinking';
}

/** Tells a screen reader what came: finished sentences of the answer, at most every two seconds, and state changes. */
function Spoken({ view }: { view: View }) {
  const [text, setText] = useState('');
  const told = useRef({ key: '', length: 0, running: view.running });
  const latest = useRef(view);
  latest.current = view;
  useEffect(() => {
    const newest = (): Item | undefined => latest.current.items.findLast((item) => item.kind === 'assistant');
    const start = newest();
    // What was there when the session was opened is read by going there, not announced.
    if (start?.kind === 'assistant')
      told.current = { key: start.key, length: start.text.length, running: latest.current.running };
    const timer = setInterval(() => {
      const state = told.current;
      const item = newest();
      if (item?.kind === 'assistant') {
        if (item.key !== state.key) Object.assign(state, { key: item.key, length: 0 });
        const rest = item.text.slice(state.length);
        const end =
          item.status === 'streaming' ? Math.max(rest.lastIndexOf('. '), rest.lastIndexOf('\n')) + 1 : rest.length;
        if (end > 0) {
          state.length += end;
          setText(plain(rest.slice(0, Math.min(end, 2000))));
          return;
        }
      }
      if (state.running !== latest.current.running) {
        state.running = latest.current.running;
        const open = latest.current.items.some((one) => one.kind === 'gate' && one.gate.state === 'open');
        setText(
          state.running
            ? 'The turn has begun.'
            : open
              ? 'The turn has ended. A proposal waits for you.'
              : 'The turn has ended.',
        );
      }
    }, 2000);
    return () => clearInterval(timer);
  }, []);
  return (
    <div class="hidden" role="status" aria-live="polite">
      {text}
    </div>
  );
}
