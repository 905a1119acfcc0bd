import { Command } from 'commander';
import { registerCommands } from './commands.ts';

const program = new Command('manushya')
  .description('Identity, memory and knowledge for AI agents, under one set of rules')
  .version('0.1.0')
  .showHelpAfterError()
  // 2 for a command that was misused, as with a bad value.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));
registerCommands(program);
await program.parseAsync();
