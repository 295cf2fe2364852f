// Run by temporal-downloads.ts in a process of its own: the SDK's download cannot be cancelled, a process can. Fetches
// the Temporal CLI into the folder given as the argument by starting (and at once stopping) the SDK's local server.
import { TestWorkflowEnvironment } from '@temporalio/testing';

const environment = await TestWorkflowEnvironment.createLocal({
  server: { ip: '127.0.0.1', executable: { type: 'cached-download', downloadDir: process.argv[2] } },
});
await environment.teardown();
