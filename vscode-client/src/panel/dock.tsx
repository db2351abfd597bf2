// What is true of the session now, between the conversation and the composer: plan, files changed so far, queue.

import { useState } from 'preact/hooks';
import { Size } from './gate';
import { post } from './host';
import { Icon } from './icon';
import { count, nameOf, pathIn, plain, visible } from './text';
import type { ComponentChildren } from 'preact';
import type { Folder } from './messages';
import type { View } from './state';
import type { Store } from './store';
import type { FileStat, PlanEntry, QueueEntry } from '../protocol';

export function Dock({ view, folders }: { view: View; folders: readonly Folder[] }) {
  const changes = view.running ? view.changes : [];
  const plan = view.running || view.plan.some((entry) => entry.status !== 'completed') ? view.plan : [];
  if (plan.length === 0 && changes.length === 0 && view.queue.length === 0) return null;
  return (
    <div class="dock">
      {plan.length > 0 && <PlanStrip entries={plan} />}
      {changes.length > 0 && <ChangesStrip files={changes} folders={folders} />}
      {view.queue.length > 0 && <QueueStrip entries={view.queue} running={view.running} />}
    </div>
  );
}

/** What the host said outside of the conversation, such as why something could not be done; it can be dismissed. */
export function Asides({ store }: { store: Store }) {
  return (
    <div class="asides" role="alert">
      {store.asides.map((aside) => (
        <div key={aside.id} class={`notice ${aside.severity}`}>
          <Icon name={aside.severity} /> <span>{visible(plain(aside.text))}</span>
          <button
            type="button"
            class="icon"
            title="Dismiss"
            aria-label="Dismiss"
            onClick={() => store.dismiss(aside.id)}
          >
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

function Strip({
  icon,
  title,
  open,
  aside,
  children,
}: {
  icon: string;
  title: string;
  open: boolean;
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <details class="strip" open={open}>
      <summary>
        <i class="codicon codicon-chevron-right twist" aria-hidden="true" />
        <Icon name={icon} />
        <span class="title">{title}</span>
        {aside}
      </summary>
      {children}
    </details>
  );
}

const STEP = { pending: 'circle-large-outline', in_progress: 'arrow-circle-right', completed: 'pass-filled' };
const STEP_WORD = { pending: 'to do', in_progress: 'now', completed: 'done' };

function PlanStrip({ entries }: { entries: readonly PlanEntry[] }) {
  const done = entries.filter((entry) => entry.status === 'completed').length;
  const now =
    entries.find((entry) => entry.status === 'in_progress') ?? entries.find((entry) => entry.status === 'pending');
  return (
    <Strip
      icon="list-ordered"
      title={now === undefined ? 'Plan' : visible(now.text)}
      open={false}
      aside={
        <span class="dim">
          {done}/{entries.length}
        </span>
      }
    >
      <ol class="plan">
        {entries.map((entry, place) => (
          <li key={place} class={entry.status}>
            <Icon name={STEP[entry.status]} />
            <span>
              {visible(entry.text)}
              <span class="hidden">, {STEP_WORD[entry.status]}</span>
            </span>
          </li>
        ))}
      </ol>
    </Strip>
  );
}

function ChangesStrip({ files, folders }: { files: readonly FileStat[]; folders: readonly Folder[] }) {
  const added = files.reduce((sum, file) => sum + file.added, 0);
  const removed = files.reduce((sum, file) => sum + file.removed, 0);
  return (
    <Strip
      icon="diff"
      title={`${count(files.length, 'file')} changed so far`}
      open={false}
      aside={<Size added={added} removed={removed} />}
    >
      <ul class="files">
        {files.map((file) => {
          const { name, folder } = nameOf(pathIn(file.uri, folders));
          return (
            <li key={file.uri} class="file">
              <button
                type="button"
                class="row"
                title={`See what has changed so far in ${name}`}
                onClick={() => post({ type: 'changes', uri: file.uri })}
              >
                <span class="name">{visible(name)}</span>
                <span class="folder">{visible(folder)}</span>
                <Size added={file.added} removed={file.removed} />
              </button>
            </li>
          );
        })}
      </ul>
    </Strip>
  );
}

function QueueStrip({ entries, running }: { entries: readonly QueueEntry[]; running: boolean }) {
  return (
    <Strip icon="list-unordered" title={`${count(entries.length, 'message')} waiting`} open>
      <ul class="queue">
        {entries.map((entry) => (
          <Waiting key={entry.messageId} entry={entry} running={running} />
        ))}
      </ul>
    </Strip>
  );
}

function Waiting({ entry, running }: { entry: QueueEntry; running: boolean }) {
  const [text, setText] = useState<string>();
  if (text !== undefined) {
    const save = (): void => {
      if (text.trim() && text !== entry.text) post({ type: 'requeue', messageId: entry.messageId, text });
      setText(undefined);
    };
    return (
      <li class="editing">
        <textarea
          aria-label="The waiting message"
          value={text}
          rows={Math.min(8, text.split('\n').length + 1)}
          ref={(element) => {
            if (element && document.activeElement !== element) element.focus();
          }}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === 'Escape') setText(undefined);
            if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              save();
            }
          }}
        />
        <button type="button" class="icon" title="Save" aria-label="Save" onClick={save}>
          <Icon name="check" />
        </button>
        <button
          type="button"
          class="icon"
          title="Leave as it was"
          aria-label="Leave as it was"
          onClick={() => setText(undefined)}
        >
          <Icon name="close" />
        </button>
      </li>
    );
  }
  return (
    <li>
      <span class="text" title={plain(entry.text)}>
        {plain(entry.text).split('\n')[0]}
      </span>
      {entry.delivery === 'steer' && <span class="badge">steers</span>}
      {running && entry.delivery === 'queue' && (
        <button
          type="button"
          class="icon"
          title="Steer the running turn with it now"
          aria-label="Steer now"
          onClick={() => post({ type: 'steer', messageId: entry.messageId, text: entry.text })}
        >
          <Icon name="debug-step-into" />
        </button>
      )}
      <button
        type="button"
        class="icon"
        title="Edit"
        aria-label="Edit this message"
        onClick={() => setText(entry.text)}
      >
        <Icon name="edit" />
      </button>
      <button
        type="button"
        class="icon"
        title="Remove"
        aria-label="Remove this message"
        onClick={() => post({ type: 'requeue', messageId: entry.messageId })}
      >
        <Icon name="trash" />
      </button>
    </li>
  );
}
