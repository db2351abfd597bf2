// A tool call: one line that tells what happens, and behind it what went in and what came out.

import { memo } from 'preact/compat';
import { useState } from 'preact/hooks';
import { highlight } from './highlight';
import { post } from './host';
import { Icon } from './icon';
import { Rest } from './prose';
import { cap, nameOf, plain, visible } from './text';
import type { Location, ToolCallUpdate } from '../protocol';
import type { ComponentChildren } from 'preact';

const ICONS: Record<ToolCallUpdate['kind'], string> = {
  read: 'file',
  edit: 'edit',
  delete: 'trash',
  search: 'search',
  execute: 'terminal',
  agent: 'hubot',
  memory: 'database',
  other: 'tools',
};
const MOST_OUTPUT = 20_000;

export const ToolCard = memo(function ToolCard({ call, stopped }: { call: ToolCallUpdate; stopped: boolean }) {
  const [open, setOpen] = useState(false);
  const busy = !stopped && (call.status === 'running' || call.status === 'pending');
  const failed = call.status === 'failed';
  const state = busy
    ? call.status === 'pending'
      ? 'waits'
      : 'running'
    : stopped
      ? 'stopped'
      : failed
        ? 'failed'
        : 'done';
  const title = visible(plain(call.title)).split('\n')[0] ?? '';
  return (
    <details class={`tool ${state}`} open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <Icon name={busy ? 'loading' : failed ? 'error' : stopped ? 'circle-slash' : ICONS[call.kind]} spin={busy} />
        <span class={call.kind === 'execute' ? 'title mono' : 'title'} title={title}>
          {title}
        </span>
        <span class="hidden">, {state}</span>
        {call.locations.slice(0, 1).map((location) => (
          <Place key={location.uri} location={location} />
        ))}
        <i class="codicon codicon-chevron-right twist" aria-hidden="true" />
      </summary>
      {open && <Body call={call} />}
    </details>
  );
});

function Place({ location }: { location: Location }) {
  const { name } = nameOf(location.uri);
  const line = location.line === undefined ? '' : `:${location.line + 1}`;
  return (
    <button
      type="button"
      class="link place"
      title={`Open ${name}${line}`}
      aria-label={`Open ${name}${line}`}
      onClick={(event) => {
        event.preventDefault(); // The click opens the file, not the card.
        post({ type: 'location', uri: location.uri, ...(location.line === undefined ? {} : { line: location.line }) });
      }}
    >
      <Icon name="go-to-file" />
    </button>
  );
}

function Body({ call }: { call: ToolCallUpdate }) {
  return (
    <div class="tool-body">
      {call.locations.length > 1 && (
        <ul class="places">
          {call.locations.map((location, place) => (
            <li key={place}>
              <button
                type="button"
                class="link"
                onClick={() =>
                  post({
                    type: 'location',
                    uri: location.uri,
                    ...(location.line === undefined ? {} : { line: location.line }),
                  })
                }
              >
                {nameOf(location.uri).name}
                {location.line === undefined ? '' : `:${location.line + 1}`}
              </button>
            </li>
          ))}
        </ul>
      )}
      {call.input !== undefined && <Input call={call} input={call.input} />}
      {call.output ? <Text label="Output" text={call.output} /> : null}
    </div>
  );
}

/** What went in: a command as a command, an edit as lines taken and lines given, the rest name by name. */
function Input({ call, input }: { call: ToolCallUpdate; input: string }) {
  const fields = readFields(input);
  if (fields === undefined) return <Text label="Input" text={input} />;
  const rows: ComponentChildren[] = [];
  for (const [name, value] of Object.entries(fields)) {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    if (name === 'command' && call.kind === 'execute')
      rows.push(<Text key={name} label="Command" text={text} language="bash" />);
    else if (name === 'old' && call.kind === 'edit') rows.push(<Lines key={name} text={text} sign="−" />);
    else if ((name === 'new' || name === 'content') && call.kind === 'edit')
      rows.push(<Lines key={name} text={text} sign="+" />);
    else if (text.includes('\n') || text.length > 120) rows.push(<Text key={name} label={name} text={text} />);
    else
      rows.push(
        <p key={name} class="field">
          <span>{name}</span> <code>{visible(plain(text))}</code>
        </p>,
      );
  }
  return <>{rows}</>;
}

function readFields(input: string): Record<string, unknown> | undefined {
  if (input.length > 200_000) return undefined;
  try {
    const value: unknown = JSON.parse(input);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined; // A model may write anything; then it is shown as it came.
  }
}

function Lines({ text, sign }: { text: string; sign: '+' | '−' }) {
  const { shown, cut } = cap(text, MOST_OUTPUT);
  const kind = sign === '+' ? 'added' : 'removed';
  return (
    <>
      <pre class={`lines ${kind}`} tabIndex={0} aria-label={sign === '+' ? 'New text' : 'Old text'}>
        {plain(shown)
          .replace(/\n$/, '')
          .split('\n')
          .map((line, place) => (
            <span key={place}>
              <b aria-hidden="true">{sign}</b>
              {line}
              {'\n'}
            </span>
          ))}
      </pre>
      {cut && <Rest text={text} language="plaintext" />}
    </>
  );
}

/** A labelled block of plain or highlighted text. */
export function Text({ label, text, language }: { label: string; text: string; language?: string }) {
  const { shown, cut } = cap(text, MOST_OUTPUT);
  const clean = language === undefined ? plain(shown) : visible(plain(shown));
  const coloured = language === undefined ? undefined : highlight(clean, language, MOST_OUTPUT);
  return (
    <div class="block">
      <p class="label">{label}</p>
      {coloured === undefined ? (
        <pre tabIndex={0} aria-label={label}>
          {clean.trimEnd()}
        </pre>
      ) : (
        // highlight.js escapes the text; what is left is its own spans.
        <pre tabIndex={0} aria-label={label} dangerouslySetInnerHTML={{ __html: coloured }} />
      )}
      {cut && <Rest text={text} language={language ?? 'plaintext'} />}
    </div>
  );
}
