// What the checklist and the model page show, and what their buttons ask for: plain types, for the host and the panel.

/** One line of the checklist that an empty panel shows. */
export interface ChecklistItem {
  id: 'trust' | 'server' | 'model' | 'isolation';
  title: string;
  /** One plain sentence on the state. */
  detail: string;
  state: 'ok' | 'todo' | 'working' | 'warning';
  /** The one button; `id` goes back to `SetUp.act` as `{ do: id }`. */
  action?: { id: PlainAction; label: string };
}

/** A model as the model page shows it. */
export interface ModelRow {
  id: string;
  baseUrl?: string;
  contextTokens?: number;
  tools?: boolean;
  /** Plain sentences: no tool calling, small context. */
  warnings: string[];
  current: boolean;
}

/** An endpoint as the model page shows it. */
export interface EndpointRow {
  name: string;
  /** Empty: a provider that the server reaches without an address of its own. */
  baseUrl: string;
  /** What its key is bound to; empty with an empty address. */
  origin: string;
  hasKey: boolean;
  needsKey: boolean;
  /** The user has added it, and can remove it. */
  added: boolean;
  /** Why its models could not be listed. */
  problem?: string;
  models: ModelRow[];
}

/** What the model page shows. */
export interface ModelPage {
  searching: boolean;
  current?: string;
  /** One plain sentence where something outranks what was chosen. */
  notice?: string;
  endpoints: EndpointRow[];
  test?: { state: 'running' | 'ok' | 'failed'; message: string; latencyMs?: number };
}

/** What a button without anything more to say asks for. */
export type PlainAction =
  | 'install'
  | 'trust'
  | 'openFolder'
  | 'openModelPage'
  | 'offline'
  | 'isolationHelp'
  | 'restart'
  | 'showOutput'
  | 'testModel'
  | 'choosePython'
  | 'openSettings'
  | 'addEndpoint';

/** What a button of the checklist or the model page asks for. */
export type SetUpAction =
  | { do: PlainAction }
  | { do: 'selectModel'; model: string; baseUrl?: string }
  /** Asks for a model's name, for an endpoint that does not list the one that is wanted. */
  | { do: 'nameModel'; baseUrl: string }
  | { do: 'removeEndpoint'; baseUrl: string }
  | { do: 'setKey' | 'forgetKey'; origin: string };
