import { Command } from 'commander';
import { registerCommands } from './commands.ts';

const program = new Command('manushya')
  .description('Identity, memory and knowledge for AI agents, under one set of rules')
  .version('0.1.0')
  .showHelpAfterError();
registerCommands(program);
await program.parseAsync();
