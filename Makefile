# Thin names for the npm commands; see package.json.
.PHONY: up migrate seed test sdk-generate check

up:
	npm start

migrate:
	npm run --silent manushya -- migrate

seed:
	npm run --silent manushya -- seed

test:
	npm test

sdk-generate:
	npm run --silent openapi

check:
	npm run check
