// What to do for a better isolation of commands: said in a dialog, with the command for this machine.

import { join } from 'node:path';
import * as vscode from 'vscode';
import { programFolders } from './install';
import { isProgram } from './python';
import type { StatusResult } from './protocol';

const INSTALLERS: readonly (readonly [string, string])[] = [
  ['apt-get', 'sudo apt install bubblewrap'],
  ['dnf', 'sudo dnf install bubblewrap'],
  ['pacman', 'sudo pacman -S bubblewrap'],
  ['zypper', 'sudo zypper install bubblewrap'],
  ['apk', 'sudo apk add bubblewrap'],
];

/** Explain the isolation; returns true when the user asks to have it looked at again. */
export async function showIsolationHelp(status: StatusResult | undefined): Promise<boolean> {
  const [title, ...more] = words(status);
  const copy = 'Copy the Command';
  const again = 'Check Again';
  const command = process.platform === 'linux' && status?.isolation !== 'process' ? installer() : undefined;
  const detail = [...more, ...(command === undefined ? [] : [`Install it with:  ${command}`])].join('\n\n');
  const buttons = [...(command === undefined ? [] : [copy]), ...(status === undefined ? [] : [again])];
  const picked = await vscode.window.showInformationMessage(title ?? '', { modal: true, detail }, ...buttons);
  if (picked === copy && command !== undefined) await vscode.env.clipboard.writeText(command);
  return picked === again;
}

function words(status: StatusResult | undefined): string[] {
  const found = status?.isolationDetail ?? '';
  if (status?.isolation === 'process') {
    return [
      'The agent’s commands run in a jail.',
      found,
      'They have no network, no home folder and no secrets, and can write nothing but the agent’s own copy of the files.',
    ];
  }
  const effect =
    'The agent’s edits are only proposals either way; without the jail, every command that does more than read waits for you.';
  const how =
    process.platform === 'linux'
      ? 'The jail is made by bubblewrap. Where it is installed and still does not hold, the system forbids unprivileged user namespaces.'
      : 'There is a jail on Linux only, with bubblewrap. A container or a remote machine with Linux has one.';
  return ['The agent’s commands run without a jail.', found, effect, how];
}

function installer(): string {
  const folders = [...programFolders(), '/usr/bin', '/sbin'];
  const found = INSTALLERS.find(([name]) => folders.some((folder) => isProgram(join(folder, name))));
  return found?.[1] ?? 'your package manager, package bubblewrap';
}
