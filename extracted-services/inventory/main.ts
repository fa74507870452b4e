import { runService } from '@banyan/kit/run-service.ts';
import { inventoryService } from './compose.ts';

await runService(inventoryService);
