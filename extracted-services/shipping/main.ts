import { runService } from '@banyan/kit/run-service.ts';
import { shippingService } from './compose.ts';

await runService(shippingService);
