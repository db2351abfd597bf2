// What the composer offers to complete: commands behind `/`, files and more behind `@`.
//
// Invariant: pure; where the cursor stands and what is in the text decides.

/** A command of the composer's. */
export interface Command {
  name: string;
  text: string;
  /** What may follow it. */
  argument?: string;
}

export const COMMANDS: readonly Command[] = [
  { name: 'new', text: 'Begin a new session' },
  { name: 'sessions', text: 'List the sessions' },
  { name: 'model', text: 'Choose a model' },
  { name: 'review', text: 'Review what waits for you' },
  { name: 'undo', text: 'Take the last approved change back' },
  { name: 'stop', text: 'Stop the running turn' },
  { name: 'rules', text: 'Show remembered rules' },
  { name: 'evolve', text: 'Have Selfloop learn from its sessions and improve itself' },
  { name: 'rename', text: 'Rename this session', argument: 'title' },
  { name: 'help', text: 'Show what can be typed here' },
];

/** What stands before the cursor and can be completed: its kind, what was typed of it, and where it begins. */
export interface Token {
  kind: 'command' | 'file';
  query: string;
  start: number;
}

/** Return what is being typed at a place of a text. */
export function tokenAt(text: string, caret: number): Token | undefined {
  const before = text.slice(0, caret);
  const command = /^\/([a-z]*)$/.exec(before);
  if (command) return { kind: 'command', query: command[1] ?? '', start: 0 };
  const file = /(?:^|[\s(])@([^\s@]{0,200})$/.exec(before);
  if (file) return { kind: 'file', query: file[1] ?? '', start: caret - (file[1] ?? '').length - 1 };
  return undefined;
}

/** Return the command that a whole text is, with what follows it. */
export function commandOf(text: string): { name: string; argument: string } | undefined {
  const found = /^\/([a-z]+)(?:\s+([\s\S]*))?$/.exec(text.trim());
  const name = found?.[1];
  return name !== undefined && COMMANDS.some((command) => command.name === name)
    ? { name, argument: (found?.[2] ?? '').trim() }
    : undefined;
}

/** Return a text with a token replaced, and where the cursor stands then. */
export function complete(text: string, token: Token, caret: number, by: string): { text: string; caret: number } {
  const head = text.slice(0, token.start) + by;
  const tail = text.slice(caret);
  const space = tail.startsWith(' ') || by === '' ? '' : ' ';
  return { text: head + space + tail, caret: head.length + 1 - (by === '' ? 1 : 0) };
}
