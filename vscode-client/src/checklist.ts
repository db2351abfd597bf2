// The checklist of an empty panel: what there is, what is missing, and the one button that helps. Pure functions.

import type { InstallError } from './install_error';
import { OFFLINE_MODEL } from './offline';
import type { StatusResult } from './protocol';
import type { ServerState } from './server';
import type { ChecklistItem, ModelPage, PlainAction } from './setup_page';

/** What the checklist is made of. */
export interface Facts {
  /** The names of the workspace folders. */
  folders: readonly string[];
  trusted: boolean;
  server: ServerState;
  status: StatusResult | undefined;
  /** What is being installed right now. */
  installing: string | undefined;
  trouble: InstallError | undefined;
  /** The server is the extension's own, and not a setting's. */
  isOwn: boolean;
  tested: ModelPage['test'];
  /** What outranks the user's choice of a model. */
  notice: string | undefined;
}

/** A button, as the checklist and the notifications show it. */
export interface Remedy {
  id: PlainAction;
  label: string;
}

const REMEDIES: Record<InstallError['trouble'], Remedy | undefined> = {
  absent: { id: 'install', label: 'Install' },
  cancelled: { id: 'install', label: 'Install' },
  python: { id: 'choosePython', label: 'Choose Python…' },
  venv: { id: 'install', label: 'Try Again' },
  network: { id: 'install', label: 'Try Again' },
  disk: { id: 'install', label: 'Try Again' },
  failed: { id: 'install', label: 'Try Again' },
  wheel: { id: 'openSettings', label: 'Open Settings' },
  setting: { id: 'openSettings', label: 'Open Settings' },
  platform: undefined,
};

/** Return what would help against a trouble with the installation; undefined: nothing that a button could do. */
export function remedy(trouble: InstallError | undefined): Remedy | undefined {
  return REMEDIES[trouble?.trouble ?? 'failed'];
}

/** Return the checklist's lines. */
export function checklist(facts: Facts): ChecklistItem[] {
  return [folder(facts), server(facts), model(facts), isolation(facts)];
}

function folder({ folders, trusted }: Facts): ChecklistItem {
  const names = folders.join(', ');
  if (folders.length === 0) {
    const detail = 'No folder is open, so there is nothing to work on.';
    return { id: 'trust', title: 'Folder', detail, state: 'todo', action: { id: 'openFolder', label: 'Open Folder…' } };
  }
  if (!trusted) {
    const detail = `${names} is not trusted, so no model, command or git runs in it; sessions can be read.`;
    return { id: 'trust', title: 'Trust', detail, state: 'todo', action: { id: 'trust', label: 'Trust…' } };
  }
  return { id: 'trust', title: 'Trust', detail: `You trust ${names}.`, state: 'ok' };
}

function server({ server: state, status, installing, trouble, isOwn }: Facts): ChecklistItem {
  const item = { id: 'server', title: 'Server' } as const;
  if (installing !== undefined) return { ...item, detail: `Being installed: ${installing}.`, state: 'working' };
  switch (state.kind) {
    case 'running': {
      const version = status === undefined ? '' : ` version ${status.version},`;
      const whose = isOwn ? 'in an environment of its own' : 'from the setting selfloop.server.path';
      return { ...item, detail: `It runs,${version} ${whose}.`, state: 'ok' };
    }
    case 'starting':
    case 'off':
      return { ...item, detail: 'It is being started.', state: 'working' };
    case 'missing': {
      const action = remedy(trouble);
      const line: ChecklistItem = { ...item, detail: trouble?.message ?? state.reason, state: 'todo' };
      return action === undefined ? line : { ...line, action };
    }
    case 'failed':
      return { ...item, detail: state.reason, state: 'warning', action: { id: 'restart', label: 'Restart' } };
  }
}

function model({ status, tested, notice }: Facts): ChecklistItem {
  const item = { id: 'model', title: 'Model' } as const;
  if (status === undefined) return { ...item, detail: 'It can be chosen once the server runs.', state: 'todo' };
  const action = { id: 'openModelPage', label: 'Choose…' } as const;
  if (status.model === null) {
    return { ...item, detail: 'No model is chosen, so nothing can be asked.', state: 'todo', action };
  }
  const change = { ...action, label: 'Change…' };
  if (tested?.state === 'failed') return { ...item, detail: tested.message, state: 'warning', action: change };
  if (tested?.state === 'running') return { ...item, detail: tested.message, state: 'working' };
  if (notice !== undefined) return { ...item, detail: notice, state: 'warning', action: change };
  const offline = 'The built-in offline model: a script for trying things, not a mind.';
  const untested = status.model === OFFLINE_MODEL ? offline : `${status.model} is chosen.`;
  return { ...item, detail: tested?.message ?? untested, state: 'ok', action: change };
}

function isolation({ status, trusted }: Facts): ChecklistItem {
  const item = { id: 'isolation', title: 'Isolation' } as const;
  if (status === undefined) return { ...item, detail: 'It is found out once the server runs.', state: 'todo' };
  const detail = status.isolationDetail ?? '';
  switch (status.isolation) {
    case 'process':
      return {
        ...item,
        detail: detail || 'Commands run in a jail, without network.',
        state: 'ok',
        action: { id: 'isolationHelp', label: 'Details' },
      };
    case 'changes':
      return { ...item, detail, state: 'warning', action: { id: 'isolationHelp', label: 'Get the Jail…' } };
    case 'none':
      // Without trust nothing was looked for yet; else something is missing that the server names.
      return { ...item, detail, state: trusted ? 'warning' : 'todo' };
  }
}
