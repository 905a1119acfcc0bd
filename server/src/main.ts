import { Command } from 'commander';
import { registerProcesses } from './processes.ts';

const program = new Command('manushya')
  .description('Identity, memory and knowledge for AI agents, under one set of rules')
  .version('0.1.0')
  .showHelpAfterError()
  // 2 for a command that was misused, as with a bad value.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));
registerProcesses(program);
// All other words load everything before they are even known.
if (!['serve', 'worker'].includes(process.argv[2] ?? ''))
  (await import('./commands.ts')).registerCommands(program);
await program.parseAsync();
