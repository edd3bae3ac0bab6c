"""The way to the providers: pooled HTTP/1.1 connections, TLS, proxies."""
