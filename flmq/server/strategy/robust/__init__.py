"""Strategies that withstand clients that lie: medians, trimmed means, Krum, Bulyan.

Each takes every client's word once, whatever ``num_examples`` it claims: a client that lies about
its model lies about its weight, too. A client of which several replies came (late ones of earlier
rounds, or asked twice) counts with its newest alone; else f of them could speak for more than f.
"""
