// The command line on any machine with Node 20 and npm: `npm run manushya -- keys create ...`.
import { launch } from './launch.mjs';

launch(process.argv.slice(2));
