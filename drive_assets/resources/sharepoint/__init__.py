"""A client of Microsoft Graph for recordings in a SharePoint library. No Dagster inside.

`client.GraphClient` resolves sites, lists by delta and downloads; `settings.SharePointSettings` is read from the
environment. Importing this package, its `items` or its `settings` loads neither msal nor requests.
"""
