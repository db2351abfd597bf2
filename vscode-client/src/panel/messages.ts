// What the panel and the extension host say to each other.
//
// Invariant: plain data, no DOM and no VS Code in here, so that both sides compile it. Nothing that the panel says is
// taken as an approval of anything but the gate, the option and the hunks that it names.

import type {
  ContextItem,
  Evidence,
  GateInfo,
  GateOption,
  HunkRef,
  QueueEntry,
  SessionInfo,
  TrustCard,
  UpdateEnvelope,
} from '../protocol';
import type { ChecklistItem, ModelPage, SetUpAction } from '../setup_page';

export type Page = 'chat' | 'sessions' | 'models';

/** Something that goes with the next message, as a chip shows it. */
export interface Attachment {
  /** Equal ids are the same thing: attached twice, it is there once. */
  id: string;
  kind: 'file' | 'selection' | 'problems';
  label: string;
  /** The whole path, for the tooltip. */
  detail: string;
  item: ContextItem;
}

/** A folder of the workspace. */
export interface Folder {
  uri: string;
  name: string;
}

/** A file that `@` offers. */
export interface FileChoice {
  uri: string;
  name: string;
  /** The folder, relative to the workspace; empty at its root. */
  folder: string;
}

/** A file of a gate, as its card lists it. */
export interface CardFile {
  uri: string;
  path: string;
  operation: 'create' | 'modify' | 'delete' | 'rename';
  added: number;
  removed: number;
  /** Hunks that are still pending, with the digests of what is shown. */
  pending: readonly HunkRef[];
  stale: number;
  approved: number;
  rejected: number;
}

/** What a gate's card shows beyond the gate itself. */
export interface GateCard {
  gateId: string;
  digest: string;
  files: readonly CardFile[];
  evidence: readonly Evidence[];
  card?: TrustCard;
}

/** How the session in view looks at first: the newest page of its updates. */
export interface Opened {
  type: 'opened';
  /** Rises with each session that is opened; what carries an older one is dropped. */
  epoch: number;
  sessionId?: string;
  updates: UpdateEnvelope[];
  more: boolean;
  running: boolean;
  queue: QueueEntry[];
}

export type ToPanel =
  | Opened
  | { type: 'updates'; epoch: number; updates: UpdateEnvelope[] }
  | { type: 'older'; epoch: number; updates: UpdateEnvelope[]; more: boolean }
  | { type: 'page'; page: Page }
  | { type: 'focus' }
  | { type: 'checklist'; items: ChecklistItem[]; ready: boolean }
  | { type: 'models'; models: ModelPage }
  | { type: 'sessions'; query: string; sessions: SessionInfo[] }
  | { type: 'card'; card: GateCard }
  | { type: 'attach'; attachments: Attachment[] }
  | { type: 'offer'; attachments: Attachment[] }
  | { type: 'files'; id: number; files: FileChoice[] }
  | { type: 'sent'; id: number; messageId?: string; error?: string }
  | { type: 'history'; entries: string[] }
  | { type: 'suggest'; text: string }
  | { type: 'status'; model?: string; folders: Folder[] }
  | { type: 'notice'; severity: 'info' | 'warning' | 'error'; text: string };

export type FromPanel =
  | { type: 'ready' }
  | { type: 'page'; page: Page }
  | { type: 'send'; id: number; text: string; context: ContextItem[]; delivery?: 'queue' | 'steer' }
  | { type: 'cancel' }
  | { type: 'older'; epoch: number; before: number }
  | { type: 'requeue'; messageId: string; text?: string }
  | { type: 'steer'; messageId: string; text: string }
  | { type: 'link'; href: string }
  | { type: 'location'; uri: string; line?: number }
  | { type: 'document'; text: string; language: string }
  | { type: 'changes'; uri: string }
  | { type: 'card'; gateId: string }
  | { type: 'review'; gateId: string; uri?: string }
  | { type: 'resolve'; gateId: string; optionId: string; digest: string; hunks?: HunkRef[] }
  | { type: 'undo'; gateId: string }
  | { type: 'files'; id: number; query: string }
  | { type: 'attach'; what: 'selection' | 'file' | 'problems' }
  | { type: 'run'; command: PanelCommand }
  | { type: 'sessions'; query: string }
  | { type: 'open'; sessionId: string }
  | { type: 'rename'; sessionId?: string; title?: string }
  | { type: 'delete'; sessionId: string }
  | { type: 'act'; action: SetUpAction };

/** Commands that the panel may run, and no others. */
export type PanelCommand = 'new' | 'rules' | 'review' | 'undo' | 'model' | 'output' | 'evolve';

export type {
  ChecklistItem,
  Evidence,
  GateInfo,
  GateOption,
  ModelPage,
  QueueEntry,
  SessionInfo,
  SetUpAction,
  UpdateEnvelope,
};
