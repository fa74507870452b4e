/** A mail as it goes into the log. */
export type Mail = { readonly to: string; readonly subject: string };

/** What a customer is told when their order was placed or cancelled on the extracted side. */
export const mailAbout = (type: 'order.placed.v1' | 'order.cancelled.v1', orderId: string, to: string): Mail => ({
  to,
  subject: type === 'order.placed.v1' ? `Your order ${orderId} has been received` : `Your order ${orderId} has been cancelled`,
});
