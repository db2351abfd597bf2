// Remembered rules: the commands that are always allowed, listed with where they come from, and revoked.

import * as vscode from 'vscode';
import type { RuleInfo } from './protocol';
import { plural, visible } from './review_model';
import { show, type Server } from './server';

interface Row extends vscode.QuickPickItem {
  rule?: RuleInfo;
}

const REVOKE: vscode.QuickInputButton = { iconPath: new vscode.ThemeIcon('trash'), tooltip: 'Revoke this rule' };

/** Register `selfloop.rules.show`. */
export function registerRules(server: Server): vscode.Disposable {
  return vscode.commands.registerCommand('selfloop.rules.show', () => showRules(server).catch(show));
}

async function showRules(server: Server): Promise<void> {
  const { rules } = await server.request('selfloop/rule/list', {});
  const pick = vscode.window.createQuickPick<Row>();
  pick.title = 'Remembered rules: what always runs without asking';
  pick.matchOnDescription = true;
  pick.matchOnDetail = true;
  const fill = (rows: readonly RuleInfo[]): void => {
    pick.placeholder =
      rows.length === 0 ? 'There are none. “Always” at a command’s gate makes one.' : 'Choose a rule to revoke it';
    pick.items = rows.map(row);
  };
  fill(rules);
  const revoke = async (rule: RuleInfo): Promise<void> => {
    pick.ignoreFocusOut = true;
    const answer = await vscode.window.showWarningMessage(
      'Revoke this rule?',
      { modal: true, detail: `${visible(rule.rule)}\n\nThe next time, this command is asked about again.` },
      'Revoke',
    );
    if (answer === 'Revoke') {
      await server.request('selfloop/rule/remove', { ruleId: rule.ruleId });
      fill((await server.request('selfloop/rule/list', {})).rules);
    }
    pick.ignoreFocusOut = false;
    pick.show();
  };
  const chosen = (item: Row | undefined): void => {
    if (item?.rule !== undefined) void revoke(item.rule).catch(show);
  };
  pick.onDidTriggerItemButton(({ item }) => chosen(item));
  pick.onDidAccept(() => chosen(pick.selectedItems[0]));
  pick.onDidHide(() => {
    if (!pick.ignoreFocusOut) pick.dispose();
  });
  pick.show();
}

function row(rule: RuleInfo): Row {
  const since = new Date(rule.createdAt);
  const day = Number.isNaN(since.getTime()) ? rule.createdAt : since.toLocaleDateString();
  return {
    label: visible(rule.example).replace(/\s+/g, ' '),
    description: `${rule.uses === 0 ? 'never used' : `used ${plural(rule.uses, 'time')}`} · since ${day}`,
    detail: `${visible(rule.rule)} (from ${rule.origin})`,
    iconPath: new vscode.ThemeIcon('terminal'),
    buttons: [REVOKE],
    rule,
  };
}
