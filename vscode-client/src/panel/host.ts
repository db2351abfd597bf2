// The panel's one wire to the extension host, and what it keeps over being closed and opened again.

import type { Attachment, FromPanel } from './messages';

interface Api {
  postMessage(message: FromPanel): void;
  getState(): unknown;
  setState(state: unknown): void;
}

declare function acquireVsCodeApi(): Api;

const api = acquireVsCodeApi();

/** What outlives the web view: a text that was not sent yet, and what goes with it. */
export interface Draft {
  text: string;
  attachments: Attachment[];
}

export function post(message: FromPanel): void {
  api.postMessage(message);
}

export function loadDraft(): Draft {
  const kept = api.getState() as Partial<Draft> | undefined;
  return { text: kept?.text ?? '', attachments: kept?.attachments ?? [] };
}

export function saveDraft(draft: Draft): void {
  api.setState(draft);
}
