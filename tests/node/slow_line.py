"""A hub of network interfaces that delays and loses frames, for kernels that
are built without netem: python3 slow_line.py DELAY_MS LOSS_PERCENT IFACE…

Ends with its standard input. Prints a line when frames pass.
"""

import heapq
import os
import random
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING, ETH_P_ALL = 263, 15, 4, 0x0003
# Of the header that says how a frame is to be cut and summed, which goes along.
HEADER = 10


def main():
    delay, loss = float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100
    ports = [port(name) for name in sys.argv[3:]]
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN | select.POLLHUP)
    for each in ports:
        poll.register(each, select.POLLIN)
    by_number = {each.fileno(): each for each in ports}
    where, waiting, count = {}, [], 0
    try:
        # A line does not get slower when the machine has much to do.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as error:
        print(f"the line shares the processor with all others: {error}", file=sys.stderr)
    print("ready", flush=True)
    while True:
        pause = None if not waiting else max(0, (waiting[0][0] - time.monotonic()) * 1000)
        for number, _ in poll.poll(pause):
            if number not in by_number:
                return
            source = by_number[number]
            frame, about = source.recvfrom(1 << 17)
            if about[2] == PACKET_OUTGOING:
                continue
            where[frame[HEADER + 6 : HEADER + 12]] = source
            known = where.get(frame[HEADER : HEADER + 6])
            for target in [known] if known else ports:
                if target is not source and random.random() >= loss:
                    heapq.heappush(waiting, (time.monotonic() + delay, count, target, frame))
                    count += 1
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(waiting)
            try:
                target.send(frame)
            except OSError:
                # The other end is down, or has no room: as on any line.
                pass


def port(name):
    each = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    each.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    each.bind((name, 0))
    each.setblocking(False)
    return each


main()
