import { runService } from '@banyan/kit/run-service.ts';
import { orderService } from './compose.ts';

await runService(orderService);
